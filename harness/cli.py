"""``ilf-bench``: each command parses, calls and prints."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table

from harness.errors import HarnessError, UsageError

app = typer.Typer(
    name="ilf-bench", no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False,
    help="Is this accelerator really better than taking fewer steps, on my machine, at the quality I need?",
)  # fmt: skip
console = Console(width=None if sys.stdout.isatty() else 160)  # in a log or a pipe no table is squeezed to 80 columns
EXIT_USAGE, EXIT_PARTIAL, EXIT_IO, EXIT_INTERRUPTED = 64, 4, 74, 130

Out = Annotated[Path, typer.Option(help="Folder of all runs and of the history.")]
DEFAULT_OUT = Path("runs")
Scorers = Annotated[
    str | None, typer.Option(help="Folder of the tiny scorers, or a YAML file naming published ones; see docs/metrics.md.")
]
Reference = Annotated[str | None, typer.Option(help="Of FID and its kin: features, a statistics file, or a folder of images.")]


@app.command()
def run(
    preset: Annotated[str, typer.Argument(help="A bundled preset or a YAML file.")] = "tiny-text",
    methods: Annotated[
        str | None, typer.Option(help="Comma-separated, for example full,steps:12,deepcache:interval=3,ilf.")
    ] = None,
    metrics: Annotated[str | None, typer.Option(help="Comma-separated; see `ilf-bench list metrics`.")] = None,
    steps: Annotated[int | None, typer.Option(help="Steps of the full run.")] = None,
    samples: Annotated[int | None, typer.Option(help="Images a method.")] = None,
    seed: Annotated[int | None, typer.Option(help="Key of the starting noise.")] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda, cuda:1, ...")] = None,
    precision: Annotated[str | None, typer.Option(help="auto, fp32, bf16 or fp16.")] = None,
    pipeline: Annotated[
        str | None, typer.Option(help="Weights: a diffusers folder, hub:OWNER/NAME, or random:ARCHITECTURE (speed only).")
    ] = None,
    dtype: Annotated[str | None, typer.Option(help="Of the weights: float32, bfloat16 or float16.")] = None,
    prompts: Annotated[
        str | None, typer.Option(help="A .txt, .csv, .tsv, .json, .jsonl or .parquet, hub:OWNER/NAME/FILE, classes:N.")
    ] = None,
    scorers: Scorers = None,
    reference: Reference = None,
    plugin: Annotated[
        list[Path] | None, typer.Option(help="A Python file with METHODS = {name: class}; your own code is run.")
    ] = None,
    out: Out = DEFAULT_OUT,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print cost, expected time and disk; sample nothing.")] = False,
) -> None:
    """Compare methods: generate, time, score, report."""
    from harness.commands import run as work

    overrides = {
        "methods": work.split(methods), "metrics": work.split(metrics), "steps": steps, "samples": samples, "seed": seed,
        "device": device, "precision": precision, "pipeline": pipeline, "dtype": dtype, "prompts": prompts,
        "scorers": scorers, "reference": reference,
    }  # fmt: skip
    prepared = work.prepare(preset, {k: v for k, v in overrides.items() if v is not None}, plugin or [])
    if dry_run:
        work.print_dry_run(prepared, out, console)
        return
    failures = work.execute(prepared, out, console)
    raise typer.Exit(EXIT_PARTIAL if failures else 0)


@app.command()
def report(run: Annotated[Path, typer.Argument(help="A run folder.")]) -> None:
    """Rebuild the report of a run from its stored records; write its LaTeX table and vector figures."""
    from reports.build import build_paper, build_report

    console.print(f"report: {build_report(run)}", soft_wrap=True)
    console.print(f"paper:  {build_paper(run)}", soft_wrap=True)


@app.command("list")
def list_(what: Annotated[str, typer.Argument(help="methods, metrics or presets")]) -> None:
    """What this installation knows."""
    from harness.commands import listing as work

    tables = {"methods": work.describe_methods, "metrics": work.describe_metrics, "presets": work.describe_presets}
    if what not in tables:
        raise UsageError(expected="methods, metrics or presets", got=repr(what), remedy="ilf-bench list methods")
    table = Table("name", "what it is")
    for row in tables[what]():
        table.add_row(*map(escape, row))
    console.print(table)


@app.command()
def doctor() -> None:
    """What is installed, which weights are here, which device, what will run and what will not."""
    from harness.doctor import diagnose

    table = Table("check", "state", Column("found", overflow="fold"), Column("remedy", overflow="fold"))
    findings = diagnose()
    for finding in findings:
        table.add_row(*map(escape, (finding.check, finding.state, finding.found, finding.remedy)))
    console.print(table)
    raise typer.Exit(1 if any(finding.state == "broken" for finding in findings) else 0)


@app.command()
def score(
    folder: Annotated[Path, typer.Argument(help="Images that another program made.")],
    prompts: Annotated[Path, typer.Option(help="One prompt a line, in the order of the sorted file names.")],
    metrics: Annotated[
        str, typer.Option(help="Comma-separated; `ilf-bench list metrics`.")
    ] = "clip_score,clip_iqa,image_reward,fid",
    task: Annotated[str, typer.Option(help="text or class: which reference and features.")] = "text",
    scorers: Scorers = None,
    reference: Reference = None,
) -> None:
    """Score a folder of images."""
    from harness.commands.run import split
    from harness.commands.score import score_folder

    table = Table("metric", "value", "95% interval", "N")
    failed = False
    for row, good in score_folder(folder, prompts, split(metrics) or (), task, scorers, reference):
        table.add_row(*map(escape, row))
        failed |= not good
    console.print(table)
    raise typer.Exit(EXIT_PARTIAL if failed else 0)


@app.command()
def history(out: Out = DEFAULT_OUT) -> None:
    """Every recorded run, newest last."""
    from harness.store import History
    from reports.history import history_tables

    for table in history_tables(History(out / "history.sqlite").runs()):
        console.print(table)


@app.command()
def power(
    what: Annotated[str, typer.Argument(help="A preset that you mean to run, or a run folder.")],
    pilot: Annotated[str | None, typer.Option(help="Run to take variances from; default: the newest of that preset.")] = None,
    samples: Annotated[int | None, typer.Option(help="Images a method; default: the preset's.")] = None,
    rounds: Annotated[int | None, typer.Option(help="Timing rounds; default: the preset's.")] = None,
    effect: Annotated[str | None, typer.Option(help="Differences to find, as clip_score=0.5,speed=0.02.")] = None,
    assume: Annotated[str | None, typer.Option(help="Deviations of a difference, where no pilot has them.")] = None,
    out: Out = DEFAULT_OUT,
) -> None:
    """How small a difference a run can find, and how many images it needs for the margin; runs nothing."""
    from harness.commands import power as work

    console.print(work.power(what, pilot, samples, rounds, work.amounts(effect), work.amounts(assume), out))


@app.command()
def gate(
    against: Annotated[str, typer.Option(help="Baseline: a run folder or the start of a run id.")],
    run: Annotated[str | None, typer.Argument(help="The run to judge; default: the newest.")] = None,
    out: Out = DEFAULT_OUT,
) -> None:
    """Compare a run with a baseline: exit 0 PASS, 1 FAIL, 2 INCONCLUSIVE, 3 NOT-MEASURED."""
    from harness.commands.gate import gate_runs
    from reports.gate import gate_text

    result = gate_runs(out, run, against)
    console.print(gate_text(result), markup=False, highlight=False, soft_wrap=True)
    raise typer.Exit(result.exit_code)


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; foreseen errors print one message and no traceback."""
    errors = Console(stderr=True, soft_wrap=True, highlight=False)
    code = _dispatch(arguments, errors)
    if code == EXIT_INTERRUPTED:
        errors.print("interrupted; the same command resumes where it stopped", markup=False)
    return code


def _dispatch(arguments: list[str] | None, errors: Console) -> int:
    """The exit code; everything but an interrupt has been explained."""
    try:
        result: Any = app(arguments, standalone_mode=False)
        return result if isinstance(result, int) else 0
    except typer.Exit as error:
        return int(error.exit_code)
    except (KeyboardInterrupt, typer.Abort):  # some versions of typer turn the first into an exit code of their own
        return EXIT_INTERRUPTED
    except HarnessError as error:
        errors.print(f"error: {error}", markup=False)
        return error.exit_code
    except OSError as error:
        errors.print(f"error: the system refused: {error}; remedy: free disk space or choose another --out", markup=False)
        return EXIT_IO
    except Exception as error:
        if not hasattr(error, "format_message"):  # the usage errors of typer and of click share no base class
            raise
        errors.print(f"usage error: {error.format_message()}", markup=False)
        return EXIT_USAGE


def entry() -> None:
    """Console script."""
    sys.exit(main())
