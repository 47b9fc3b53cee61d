"""``ilf-bench``: each command parses, calls and prints."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table

from harness.errors import HarnessError, UsageError
from harness.interrupts import interrupted, listen
from harness.storage.locations import place
from ilf_bench.console import print_whole

if TYPE_CHECKING:
    from harness.execution.ray import ClusterOptions

app = typer.Typer(
    name="ilf-bench",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Is this accelerator really better than taking fewer steps, on my machine, at the quality I need?",
)
console = Console(width=None if sys.stdout.isatty() else 160)  # in a log or a pipe no table is squeezed to 80 columns
EXIT_USAGE, EXIT_PARTIAL, EXIT_IO, EXIT_INTERRUPTED = 64, 4, 74, 130

Out = Annotated[Path, typer.Option(parser=place, metavar="FOLDER", help="Of all runs and the history; a URL (s3://...) too.")]
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
    compile_: Annotated[
        bool | None, typer.Option("--compile/--eager", help="torch.compile of every transformer block.", show_default=False)
    ] = None,
    rounds: Annotated[int | None, typer.Option(help="Interleaved timing rounds.")] = None,
    warmup: Annotated[int | None, typer.Option(help="Timing rounds before them, recorded apart.")] = None,
    batches: Annotated[
        str | None, typer.Option(help="Timed batch sizes, comma-separated; the first is the one that tables show.")
    ] = None,
    scorers: Scorers = None,
    reference: Reference = None,
    plugin: Annotated[
        list[Path] | None, typer.Option(help="A Python file with METHODS = {name: class}; your own code is run.")
    ] = None,
    out: Out = DEFAULT_OUT,
    engine: Annotated[str, typer.Option(help="local, or ray: many workers, on this machine or a cluster.")] = "local",
    address: Annotated[str | None, typer.Option(help="Of a running Ray cluster, or auto; else one is started here.")] = None,
    workers: Annotated[int, typer.Option(min=1, help="With ray: processes that generate.")] = 2,
    score_workers: Annotated[int | None, typer.Option(min=1, help="With ray: processes that score; default: as many.")] = None,
    score_device: Annotated[str | None, typer.Option(help="With ray: default as --device.")] = None,
    score_batch: Annotated[int, typer.Option(min=1, help="With ray: images a scorer takes at a time.")] = 64,
    deadline: Annotated[float, typer.Option(min=1, help="With ray: seconds until a worker counts as hung.")] = 1800,
    mlflow: Annotated[
        str | None, typer.Option(help="Also log the history's new runs to this MLflow store; '' is OUT/mlruns.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print cost, expected time and disk; sample nothing.")] = False,
) -> None:
    """Compare methods: generate, time, score, report."""
    from harness.history.mlflow import import_mlflow
    from ilf_bench.commands import run as work
    from ilf_bench.commands.engines import choose_engine
    from ilf_bench.commands.export import export as export_

    if mlflow is not None:
        import_mlflow()  # before anything is sampled
    overrides = {
        "methods": work.split(methods),
        "metrics": work.split(metrics),
        "steps": steps,
        "samples": samples,
        "seed": seed,
        "device": device,
        "precision": precision,
        "pipeline": pipeline,
        "dtype": dtype,
        "prompts": prompts,
        "compile": compile_,
        "timing": work.timing_overrides(rounds, warmup, batches),
        "scorers": scorers,
        "reference": reference,
    }
    prepared = work.prepare(
        preset, {k: v for k, v in overrides.items() if v is not None}, plugin or [], here=engine == "local" or dry_run
    )

    def options() -> ClusterOptions:
        from harness.execution.ray import ClusterOptions

        chosen = prepared.experiment.spec.device
        return ClusterOptions(address, workers, score_workers, chosen, score_device or chosen, score_batch, deadline)

    make_engine = choose_engine(engine, options)
    if dry_run:
        work.print_dry_run(prepared, out, console)
        return
    failures = work.execute(prepared, out, console, make_engine)
    if mlflow is not None:
        console.print(export_(out, None, mlflow), markup=False, highlight=False, soft_wrap=True)
    raise typer.Exit(EXIT_PARTIAL if failures else 0)


@app.command()
def report(run: Annotated[Path, typer.Argument(parser=place, metavar="RUN", help="A run folder.")]) -> None:
    """Rebuild the report of a run from its stored records; write its LaTeX table and vector figures."""
    from reports.render.build import build_paper, build_report

    console.print(f"report: {build_report(run)}", soft_wrap=True)
    console.print(f"paper:  {build_paper(run)}", soft_wrap=True)


@app.command("list")
def list_(what: Annotated[str, typer.Argument(help="methods, metrics or presets")]) -> None:
    """What this installation knows."""
    from ilf_bench.commands import listing as work

    two = ("name", "what it is")
    tables: dict[str, tuple[tuple[str, ...], Callable[[], Iterable[tuple[str, ...]]]]] = {
        "methods": (two, work.describe_methods),
        "metrics": (two, work.describe_metrics),
        "presets": (work.PRESET_COLUMNS, work.describe_presets),
    }
    if what not in tables:
        raise UsageError(expected="methods, metrics or presets", got=repr(what), remedy="ilf-bench list methods")
    columns, describe = tables[what]
    table = Table(*(Column(name, overflow="fold") for name in columns))
    for row in describe():
        table.add_row(*map(escape, row))
    console.print(table)


@app.command()
def doctor() -> None:
    """What is installed, which weights are here, which device, what will run and what will not."""
    from ilf_bench.doctor import diagnose

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
    from ilf_bench.commands.run import split
    from ilf_bench.commands.score import score_folder

    table = Table("metric", "value", "95% interval", "N")
    failed = False
    for row, good in score_folder(folder, prompts, split(metrics) or (), task, scorers, reference):
        table.add_row(*map(escape, row))
        failed |= not good
    console.print(table)
    raise typer.Exit(EXIT_PARTIAL if failed else 0)


@app.command()
def train(
    preset: Annotated[str, typer.Argument(help="The preset whose pipeline gets a feedback module.")],
    form: Annotated[str | None, typer.Option(help="ours, adapter (no second pass) or paper.")] = None,
    trajectories: Annotated[int | None, typer.Option(help="Runs of the teacher that are recorded once.")] = None,
    steps: Annotated[int | None, typer.Option(help="Optimizer steps.")] = None,
    batch: Annotated[int | None, typer.Option(help="Jumps a step, over all processes.")] = None,
    rounds: Annotated[int | None, typer.Option(help="How often the module's own runs are collected anew.")] = None,
    grids: Annotated[str | None, typer.Option(help="Step counts to train for, comma-separated.")] = None,
    folded: Annotated[str | None, typer.Option(help="Steps where it also stands for guidance: none, all, above-700.")] = None,
    budget: Annotated[float | None, typer.Option(help="Then search the schedule within so many block evaluations.")] = None,
    seed: Annotated[int | None, typer.Option(help="Of noise and training; not the preset's.")] = None,
    gradient_checkpointing: Annotated[bool, typer.Option("--gradient-checkpointing", help="Less memory, more time.")] = False,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda, ...")] = None,
    pipeline: Annotated[str | None, typer.Option(help="Weights, as for run.")] = None,
    dtype: Annotated[str | None, typer.Option(help="Of the weights, as for run.")] = None,
    prompts: Annotated[str | None, typer.Option(help="Captions to learn from, as for run.")] = None,
    out: Annotated[Path, typer.Option(help="The module's folder.")] = Path("runs/ilf"),
) -> None:
    """Train a feedback module; resumes where it was cut. Defaults: the preset's `training` section.

    On several devices: accelerate launch -m ilf_bench train PRESET.
    """
    from ilf_bench.commands.run import split
    from ilf_bench.commands.train import train as work

    given: dict[str, Any] = {"device": device, "pipeline": pipeline, "prompts": prompts, "dtype": dtype}
    training: dict[str, Any] = {
        "form": form,
        "trajectories": trajectories,
        "optimiser_steps": steps,
        "batch": batch,
        "rounds": rounds,
        "grids": split(grids),
        "folded": folded,
        "seed": seed,
        "gradient_checkpointing": gradient_checkpointing or None,
        "budget": budget,
    }
    overrides, changed = ({k: v for k, v in options.items() if v is not None} for options in (given, training))
    folder = work(preset, overrides, changed, out, console)
    console.print(f"use it: ilf-bench run {preset} --methods full,steps:10,ilf:checkpoint={folder}", soft_wrap=True)


@app.command()
def history(
    preset: Annotated[str | None, typer.Argument(help="Only runs of this preset.")] = None,
    html: Annotated[Path | None, typer.Option(help="Also write the dashboard, one self-contained page, to this file.")] = None,
    add: Annotated[list[Path] | None, typer.Option(help="First append this run folder; may be given several times.")] = None,
    out: Out = DEFAULT_OUT,
) -> None:
    """Every recorded run, newest last; trends, and the commits at which they moved."""
    from ilf_bench.commands.history import show_history

    for part in show_history(out, preset, html, add or []):
        print_whole(console, part)


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
    from ilf_bench.commands import power as work

    print_whole(console, work.power(what, pilot, samples, rounds, work.amounts(effect), work.amounts(assume), out))


@app.command()
def gate(
    against: Annotated[str, typer.Option(help="Baseline: a run folder, run id, commit or tag.")],
    run: Annotated[str | None, typer.Argument(help="The run to judge; default: the newest.")] = None,
    tolerance: Annotated[float, typer.Option(help="The share of time or memory whose loss must not slip through.")] = 0.05,
    margin: Annotated[
        list[str] | None, typer.Option(help="METRIC=VALUE: the loss of a score that must not slip through.")
    ] = None,
    markdown: Annotated[Path | None, typer.Option(help="Write a summary for a pull request to this file.")] = None,
    junit: Annotated[Path | None, typer.Option(help="Write JUnit XML to this file.")] = None,
    out: Out = DEFAULT_OUT,
) -> None:
    """Compare a run with a baseline: exit 0 PASS, 1 FAIL, 2 INCONCLUSIVE, 3 NOT-MEASURED."""
    from ilf_bench.commands.gate import gate_runs, parse_limits, write_summaries
    from reports.render.gate_pages import gate_text

    result = gate_runs(out, run, against, parse_limits(tolerance, margin or []))
    write_summaries(result, markdown, junit)
    console.print(gate_text(result), markup=False, highlight=False, soft_wrap=True)
    raise typer.Exit(result.exit_code)


@app.command()
def compare(
    a: Annotated[str, typer.Argument(help="A run folder, run id, commit or tag.")],
    b: Annotated[str, typer.Argument(help="The same for the other run.")],
    out: Out = DEFAULT_OUT,
) -> None:
    """What changed from run A to run B: speed, memory and every score."""
    from ilf_bench.commands.compare import compare_runs

    print_whole(console, compare_runs(out, a, b))


@app.command()
def bundle(
    run: Annotated[Path, typer.Argument(help="A run folder.")],
    target: Annotated[Path | None, typer.Argument(help="The archive; default: RUN.zip here.")] = None,
    images: Annotated[bool, typer.Option("--images", help="Put the images in, too.")] = False,
) -> None:
    """Pack all records of a run into one archive whose digest signs it."""
    from ilf_bench.commands.bundle import bundle_run

    for line in bundle_run(run, target, images):
        console.print(line, markup=False, highlight=False, soft_wrap=True)


@app.command()
def verify(
    what: Annotated[Path, typer.Argument(help="A bundle, or a run folder that the history holds.")],
    digest: Annotated[str | None, typer.Option(help="The digest that the bundle's publisher named.")] = None,
    extract: Annotated[Path | None, typer.Option(help="Unpack an intact bundle into this new folder.")] = None,
    out: Out = DEFAULT_OUT,
) -> None:
    """What was altered, is missing or extra: exit 0 where everything is as it was, else 1."""
    from ilf_bench.commands.bundle import verify as work

    lines, intact = work(what, out, digest, extract)
    for line in lines:
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    raise typer.Exit(0 if intact else 1)


@app.command()
def tag(
    name: Annotated[str, typer.Argument(help="For example baseline; giving it again moves it.")],
    run: Annotated[str, typer.Argument(help="A run folder, run id, commit or tag.")],
    out: Out = DEFAULT_OUT,
) -> None:
    """Name a run, for gate and compare."""
    from ilf_bench.commands.tag import tag_run

    console.print(f"{name}: run {tag_run(out, name, run)}", markup=False, highlight=False)


@app.command()
def export(
    target: Annotated[Path | None, typer.Argument(help="FILE.json, or FOLDER.parquet for three tables.")] = None,
    mlflow: Annotated[str | None, typer.Option(help="Also log to this MLflow store; '' is OUT/mlruns.")] = None,
    out: Out = DEFAULT_OUT,
) -> None:
    """Write the whole history to other programs' formats."""
    from ilf_bench.commands.export import export as work

    console.print(work(out, target, mlflow), markup=False, highlight=False, soft_wrap=True)


@app.command("import")
def import_(source: Annotated[Path, typer.Argument(help="What export wrote.")], out: Out = DEFAULT_OUT) -> None:
    """Read an export into the history; what is there already stays."""
    from ilf_bench.commands.export import import_ as work

    console.print(work(out, source), markup=False, highlight=False, soft_wrap=True)


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
    except Exception as error:
        if interrupted():
            return EXIT_INTERRUPTED
        if isinstance(error, HarnessError):
            errors.print(f"error: {error}", markup=False)
            return error.exit_code
        if isinstance(error, OSError):
            errors.print(f"error: the system refused: {error}; remedy: free disk space or choose another --out", markup=False)
            return EXIT_IO
        if hasattr(error, "format_message"):  # the usage errors of typer and of click share no base class
            errors.print(f"usage error: {error.format_message()}", markup=False)
            return EXIT_USAGE
        raise


def entry() -> None:
    """Console script."""
    listen()
    sys.exit(main())
