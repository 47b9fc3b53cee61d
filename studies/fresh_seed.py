"""Do the study's errors hold on noise that nothing was chosen on? Writes docs/results/fresh-seed.md.

    python -m studies.fresh_seed                # --only class: one model, whose section is replaced

The study's own seed had been looked at before the recipes of the modules were settled. Here every row of ``ilf`` that the study
has, and the adapter's where it was built, are judged on a seed of their own beside 20 steps and the best steps that need no
training, at every step count: errors to the converged sample (100 steps, float32), paired over 256 images, held-out captions.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from harness.paths import ROOT
from harness.results import FloatArray
from harness.statistics import Estimate
from ilf.checkpoint import load_module
from studies import converged
from studies.converged import ERRORS, EVALUATION_SEED, Judge
from studies.loop_forms import MODELS
from studies.study import less_error, next_costlier
from studies.study_tables import DUEL, percent, put_sections, table

DOC = ROOT / "docs" / "results" / "fresh-seed.md"
SEED = 11  # from EVALUATION_SEED on; nothing else uses it
MODULES = ("ilf", "ilf-adapter")
COUNTS = {"class": range(5, 11), "text": range(5, 11), "flow": (6, 8, 10, 12)}  # for which the modules were trained
UNTRAINED = {  # solvers and spacings that are the best without training (untrained.md), and their step counts
    "class": (("dpm++", 1.5, range(6, 14)),),
    "text": (("dpm++", 1.5, range(6, 14)), ("dpm++", 1.75, range(6, 14))),
    "flow": (("unipc", 1.0, range(6, 17)),),
}
COMPARED = ("distance", "rmse", "judge")  # as DUEL names them


@dataclass(frozen=True)
class Row:
    """A method's block evaluations per image, and each image's errors [N]."""

    name: str
    blocks: float
    errors: dict[str, FloatArray]

    def lower(self, rival: Row, error: str) -> Estimate:
        """By how much of the rival's mean error this one's is lower; paired over images."""
        return less_error(self.errors[error], rival.errors[error])


def untrained(model: str, judge: Judge) -> Iterator[tuple[str, AbstractContextManager[None]]]:
    """The rivals' names and what runs them."""
    for solver, power, counts in UNTRAINED[model]:
        for count in counts:
            words = f"{count} steps + {solver}" if power == 1 else f"{count} steps + spacing({power})"
            yield words, judge.plain(count, power, solver)


def trained(model: str, judge: Judge) -> Iterator[tuple[str, AbstractContextManager[None]]]:
    """The modules' names and what runs them."""
    for name in MODULES:
        folder = MODELS[model].folder / name
        if folder.is_dir():
            module = load_module(folder)
            yield from ((f"{name}({count} steps)", judge.module(module, count)) for count in COUNTS[model])


def next_rival(row: Row, rivals: list[Row]) -> Row | None:
    """The best of the cheapest rivals that cost at least as much."""
    chosen = next_costlier(row.blocks, [(rival.blocks, float(rival.errors["distance"].mean()), rival.name) for rival in rivals])
    return next((rival for rival in rivals if rival.name == chosen), None)


def section(model: str, work: Path) -> str:
    """The tables of one model."""
    judge = Judge(model, work / model)
    full = Row("20 steps", *judge.per_image(SEED, judge.pipeline.sampling(steps=20, solver="dpm++")))
    plain = [Row(name, *judge.per_image(SEED, method)) for name, method in untrained(model, judge)]
    modules = [Row(name, *judge.per_image(SEED, method)) for name, method in trained(model, judge)]
    means = [
        [row.name, f"{row.blocks:.0f}", *(f"{row.errors[error].mean():.{digits}f}" for error, digits in ERRORS.items())]
        for row in sorted([full, *plain, *modules], key=lambda row: row.blocks)
    ]
    pairs = [(row, rival) for row in modules for rival in (next_rival(row, plain), full) if rival is not None]
    lower = [
        [
            f"{row.name} ({row.blocks:.0f})",
            f"{rival.name} ({rival.blocks:.0f})",
            *(percent(row.lower(rival, x)) for x in COMPARED),
        ]
        for row, rival in pairs
    ]
    return "\n\n".join(
        [
            f"## {MODELS[model].folder.name}",
            f"N = {converged.EVALUATED} images, seed {EVALUATION_SEED + SEED}, guidance {judge.pipeline.guidance.scales[0]:g}.",
            table("method", "block evaluations", *ERRORS, rows=means),
            "Each row against the next more expensive one without training, and against 20 steps:",
            table("method (cost)", "rival (cost)", *DUEL[:3], rows=lower),
        ]
    )


def main(
    only: Annotated[str | None, typer.Option(help="class, text or flow.")] = None,
    work: Annotated[Path, typer.Option(help="Where converged samples are kept.")] = Path("runs/fresh-seed"),
) -> None:
    """Measure and write the page's sections."""
    put_sections(DOC, [section(model, work) for model in COUNTS if only in (None, model)])


if __name__ == "__main__":
    typer.run(main)
