"""Every rival in one fair field: ``python -m benchmarks.field`` tunes, runs both field presets and writes docs/field.md.

Resumable: what an earlier call has tuned or sampled is not done again. ``--samples`` and ``--rounds`` make it shorter.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from benchmarks.tuning import GRIDS, IMAGES, SETTINGS, Setting, Tuner, chosen
from harness.commands import run as app
from harness.commands.engines import local_engine
from harness.experiment import Experiment
from harness.loading import load_pipeline, quiet_libraries
from harness.records import Run, read_run
from harness.spec import ROOT, load_spec
from reports.field import FieldRun, field_page

PRESETS = {"field-text": "zoo/tiny-pixart/prompts-train.txt", "field-class": "zoo/tiny-dit/prompts-all.txt"}
STEPS = (16, 14, 12, 10, 8, 6, 5, 4)
SOLVERS, SOLVER_STEPS = ("ddim", "unipc", "deis", "ghvb", "bdia", "evodiff"), (12, 8, 5)
SPACED = tuple(f"steps:{n}+spacing:1.5" for n in (12, 8, 6, 5))
AXES = ("int8", "int8:float", "fp8", "compile", "cuda-graphs", "ilf:steps=8+int8", "ilf:steps=8+fp8+compile")
TUNING = ROOT / "docs" / "field-tuning"
PAGE = ROOT / "docs" / "field.md"


def methods(tuned: dict[str, list[Setting]]) -> tuple[str, ...]:
    """The full run, every solver with fewer steps, every rival's chosen settings, and the axes."""
    solvers = [f"steps:{n}+solver:{name}" for name in SOLVERS for n in SOLVER_STEPS]
    rivals = [text for settings in tuned.values() for text in chosen(settings)]
    return ("full", *(f"steps:{n}" for n in STEPS), *solvers, *SPACED, *rivals, *AXES)


def tune(preset: str, console: Console) -> dict[str, list[Setting]]:
    """The settings of every rival on the preset's pipeline, measured or read."""
    spec = load_spec(preset)
    pipeline = load_pipeline(spec)
    per_image = seconds_per_evaluation(pipeline, spec.batch) * pipeline.plan().block_evaluations
    store = TUNING.with_name(f"{TUNING.name}-{preset.removeprefix('field-')}.json")
    share = 0.0 if store.exists() else 1.0
    console.print(f"{preset}: tuning about {share * 0.7 * per_image * IMAGES * SETTINGS * len(GRIDS) / 60:.1f} min")
    return Tuner(pipeline, Path(PRESETS[preset]).read_text().splitlines(), store).run()


def seconds_per_evaluation(pipeline: Any, batch: int) -> float:
    """Of a block, from two steps of the plain pipeline."""
    from time import perf_counter

    prompts = ["0"] * batch if pipeline.is_class_conditional else ["cat"] * batch
    with pipeline.sampling(steps=2), pipeline.counting() as counter:
        pipeline.generate(prompts, 0, range(batch))
        counter.rows, start = 0.0, perf_counter()
        pipeline.generate(prompts, 0, range(batch))
        return (perf_counter() - start) / float(counter.rows)


def run_preset(preset: str, overrides: dict[str, Any], out: Path, console: Console) -> FieldRun:
    """Tune, run, and read back one preset."""
    tuned = tune(preset, console)
    prepared = app.prepare(preset, {**overrides, "methods": methods(tuned)}, [])
    experiment: Experiment = prepared.experiment
    app.print_dry_run(prepared, out, console)
    app.execute(prepared, out, console, local_engine)
    run: Run = read_run(experiment.folder(out))
    failures = {s.text: s.failure for settings in tuned.values() for s in settings if s.failure}
    return FieldRun(run, {rival: tuple(chosen(settings)) for rival, settings in tuned.items()}, failures, IMAGES * SETTINGS)


def main(
    samples: Annotated[int | None, typer.Option(help="Images a method; default: the presets'.")] = None,
    rounds: Annotated[int | None, typer.Option(help="Timing rounds; 0: costs in block evaluations only.")] = None,
    out: Annotated[Path, typer.Option(help="Folder of the runs.")] = Path("runs"),
) -> None:
    """Tune every rival, run both field presets, write docs/field.md."""
    quiet_libraries()
    console = Console()
    overrides: dict[str, Any] = {} if samples is None else {"samples": samples}
    if rounds is not None:
        overrides["timing"] = {"rounds": rounds, "batch": 32, "warmup": min(rounds, 1)}
    runs = [run_preset(preset, overrides, out, console) for preset in PRESETS]
    PAGE.write_text(field_page(runs))
    console.print(f"page: {PAGE}")


if __name__ == "__main__":
    typer.run(main)
