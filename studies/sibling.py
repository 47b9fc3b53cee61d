"""Does a module that was trained for one checkpoint carry over to a fine-tuned one? Writes docs/results/sibling.md.

    python -m zoo.recipes.sibling       # tiny-sd3-grey, a low-rank change of tiny-sd3
    python -m studies.sibling

The bundled feedback module and learned solver of tiny-sd3, on tiny-sd3 and on its sibling that they have never seen, beside plain
steps: errors to each model's own converged sample (100 steps, float32), 256 images of held-out captions. Nothing is retrained.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Annotated

import typer

from baselines.learned.bespoke import Bespoke
from harness.paths import ROOT
from ilf.checkpoint import load_module
from studies.converged import ERRORS, Judge
from studies.loop_forms import MODELS
from studies.study_tables import put_tables, table

DOC = ROOT / "docs" / "results" / "sibling.md"
TINY = ROOT / "zoo" / "tiny-sd3"
COUNTS, LEARNED = (6, 8, 10, 12), 6  # for which the module and the solver were trained


def methods(judge: Judge) -> Iterator[tuple[str, AbstractContextManager[None]]]:
    """Every row's name and what runs it."""
    pipeline = judge.pipeline
    yield "20 steps", pipeline.sampling(steps=20)
    for count in COUNTS:
        yield f"{count} steps", pipeline.sampling(steps=count)
    for solver, named in (("dpm++", "DPM-Solver++"), ("unipc", "UniPC")):
        for count in COUNTS:
            yield f"{count} steps of {named}", judge.plain(count, 1.0, solver)
    yield f"bespoke({LEARNED} steps)", Bespoke(LEARNED, str(TINY / "bespoke")).attach(pipeline)
    module = load_module(TINY / "ilf")
    for count in COUNTS:
        yield f"ilf({count} steps)", judge.module(module, count)
        yield f"ilf({count} steps), module off", judge.module(module, count, "none")


def section(model: str, work: Path) -> str:
    """The table of one model."""
    judge = Judge(model, work / model)
    rows: list[list[str]] = []
    for name, method in methods(judge):
        found = judge.errors(0, method)
        rows.append([name, f"{found['blocks']:.0f}", *(f"{found[error]:.{digits}f}" for error, digits in ERRORS.items())])
    return f"## {MODELS[model].folder.name}\n\n" + table("method", "block evaluations", *ERRORS, rows=rows)


def main(work: Annotated[Path, typer.Option(help="Where converged samples are kept.")] = Path("runs/sibling")) -> None:
    """Measure both models and write the page's tables."""
    put_tables(DOC, "\n\n".join(section(model, work) for model in ("flow", "sibling")) + "\n")


if __name__ == "__main__":
    typer.run(main)
