"""Every rival in one fair field: ``python -m studies.field`` tunes, runs both field presets and writes docs/results/field.md.

Resumable: what an earlier call has tuned or sampled is not done again, and a module trained again costs its own rows alone
(studies/reuse.py). ``--samples`` and ``--rounds`` make it shorter. INT8 is measured where torchao is installed.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Annotated, Any

import typer
from rich.console import Console

from harness.config.spec import load_spec
from harness.models.loading import load_pipeline, quiet_libraries
from harness.paths import ROOT
from harness.sampling.pipeline import Pipeline
from harness.storage.files import write_bytes
from ilf_bench import experiment as app
from ilf_bench.outcome import print_dry_run
from reports.render.field import FieldRun, field_page
from reports.render.field_figure import field_figure
from studies.reuse import linked_run
from studies.tuning import GRIDS, IMAGES, SEED, SETTINGS, Setting, Tuner, chosen

PRESETS = {"field-text": "zoo/tiny-pixart/prompts-train.txt", "field-class": "zoo/tiny-dit/prompts-all.txt"}
CONVERGED = 100  # the presets' reference_steps
STEPS = (16, 14, 12, 10, 8, 6, 5, 4)
SOLVERS, SOLVER_STEPS = ("ddim", "unipc", "deis", "ghvb", "bdia", "evodiff"), (12, 8, 5)
SPACED = tuple(f"steps:{n}+spacing:1.5" for n in (12, 8, 6, 5))
AXES = ("int8", "int8:float", "fp8", "compile", "cuda-graphs", "ilf:steps=8+int8", "ilf:steps=8+fp8+compile")
RESULTS = ROOT / "docs" / "results"


@dataclass(frozen=True)
class PreparedPreset:
    """One preset with its methods chosen; ``run`` is the folder that its records go to."""

    tuned: dict[str, list[Setting]]
    experiment: app.Prepared
    run: Path


def methods(tuned: dict[str, list[Setting]]) -> tuple[str, ...]:
    """The full run, the converged one, every solver with fewer steps, every rival's chosen settings, and the axes."""
    solvers = [f"steps:{n}+solver:{name}" for name in SOLVERS for n in SOLVER_STEPS]
    rivals = [text for settings in tuned.values() for text in chosen(settings)]
    return ("full", f"steps:{CONVERGED}", *(f"steps:{n}" for n in STEPS), *solvers, *SPACED, *rivals, *AXES)


def tune(preset: str, pipeline: Pipeline, console: Console) -> dict[str, list[Setting]]:
    """The settings of every rival on the preset's pipeline, measured or read."""
    tuner = Tuner(
        pipeline,
        Path(PRESETS[preset]).read_text(encoding="utf-8").splitlines(),
        RESULTS / f"{preset.replace('-', '-tuning-')}.json",
    )
    todo = len(tuner.unknown())
    seconds = todo * SETTINGS * IMAGES * 0.7 * seconds_per_evaluation(pipeline) * pipeline.plan().block_evaluations
    console.print(f"{preset}: {todo} of {len(GRIDS)} rivals to tune, about {seconds / 60:.1f} min")
    return tuner.run()


def seconds_per_evaluation(pipeline: Pipeline) -> float:
    """Of a block, from two steps of the plain pipeline."""
    prompts = ["0" if pipeline.is_class_conditional else "cat"] * IMAGES
    with pipeline.sampling(steps=2), pipeline.counting() as counter:
        pipeline.generate(prompts, 0, range(IMAGES))
        counter.rows, start = 0.0, perf_counter()
        pipeline.generate(prompts, 0, range(IMAGES))
        return (perf_counter() - start) / float(counter.rows)


def prepare(preset: str, overrides: dict[str, Any], out: Path, console: Console) -> PreparedPreset:
    """Tune, choose, link what is there, and say what the rest will take."""
    pipeline = load_pipeline(load_spec(preset))
    assert pipeline.folder is not None
    tuned = tune(preset, pipeline, console)
    prepared = app.prepare(preset, {**overrides, "methods": methods(tuned)}, [])
    run, found = linked_run(prepared.experiment, pipeline, out)
    print_dry_run(prepared, app.dry_run(prepared, run.parent), console)
    total = len(prepared.experiment.methods)
    console.print(f"{preset}: images of {len(found)} of {total} methods are there already, and cost no time again")
    return PreparedPreset(tuned, prepared, run)


def run_preset(one: PreparedPreset, console: Console) -> FieldRun:
    """Run, and read back."""
    run = app.execute(one.experiment, one.run.parent, console).run
    failures = {s.text: s.failure for settings in one.tuned.values() for s in settings if s.failure}
    picked = {rival: tuple(chosen(settings)) for rival, settings in one.tuned.items()}
    return FieldRun(run, picked, failures, IMAGES * SETTINGS, SEED)


def command(samples: int | None, rounds: int | None) -> str:
    """What writes this page, wherever the runs lie."""
    options = {"--samples": samples, "--rounds": rounds}
    given = [word for name, value in options.items() if value is not None for word in (name, str(value))]
    return shlex.join(["python", "-m", "studies.field", *given])


def main(
    samples: Annotated[int | None, typer.Option(help="Images per method; default: the presets'.")] = None,
    rounds: Annotated[int | None, typer.Option(help="Timing rounds; 0: costs in block evaluations only.")] = None,
    out: Annotated[Path, typer.Option(help="Folder of the runs.")] = Path("runs"),
) -> None:
    """Tune every rival, run both field presets, write docs/results/field.md and its figures."""
    quiet_libraries()
    console = Console()
    overrides: dict[str, Any] = {} if samples is None else {"samples": samples}
    if rounds is not None:
        overrides["timing"] = {"rounds": rounds, "warmup": min(rounds, 1)}
    prepared = [prepare(preset, overrides, out, console) for preset in PRESETS]
    runs = [run_preset(one, console) for one in prepared]
    for one in runs:
        write_bytes(RESULTS / "images" / f"{one.run.spec['name']}.png", field_figure(one.run, one.chosen))
    page = RESULTS / "field.md"
    write_bytes(page, field_page(runs, command(samples, rounds)).encode())
    console.print(f"page: {page}")


if __name__ == "__main__":
    typer.run(main)
