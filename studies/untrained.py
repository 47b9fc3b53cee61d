"""What is the best that can be had without training? Rebuilds docs/results/untrained.md from the bundled checkpoints.

    python -m studies.untrained                            # resumes
    python -m studies.untrained --only ilf-study-class

The untrained rivals that the ILF study may meet are chosen here, on the seed of the tuning and on captions of the training, so
that the study's own noise and captions decide nothing: step counts, solvers, spacings of the timesteps, and the guidance
difference of a step before. Errors are to the converged sample of the same noise, as there.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console

from harness.config.spec import load_spec
from harness.paths import ROOT
from studies.ilf_study import MODELS
from studies.reuse import run_study
from studies.study import FULL20, Study
from studies.study_tables import Rows, put_sections, table
from studies.tuning import BUDGETS, GRIDS, SEED

DOC = ROOT / "docs" / "results" / "untrained.md"
SAMPLES = 64
POWERS = (1.0, 1.25, 1.5, 1.75)
REUSES = ("2", "2:first=3", "3")
CACHES = ("deepcache", "fora", "taylorseer", "smoothcache", "teacache", "magcache", "first-block")
METHODS = (
    "full",
    "steps:20",
    *(f"steps:20+solver:{name}" for name in ("euler", "unipc")),
    *(f"steps:{n}" for n in (8, 10, 12, 14)),
    *(f"steps:{n}+spacing:{power:g}" for n in (8, 10, 12, 14) for power in POWERS),
    *(f"steps:{n}+solver:unipc+spacing:{power:g}" for n in (8, 12) for power in POWERS),
    *(f"steps:{n}+spacing:{power:g}+guidance-reuse:{x}" for n in (10, 12, 14, 16) for power in (1.25, 1.5) for x in REUSES),
    *(f"steps:20+guidance-reuse:{x}" for x in REUSES),
    *(f"steps:20+{text}" for cache in CACHES for text in GRIDS[cache]),
)
ERRORS = ("feature_distance", "rmse")


def best(study: Study) -> Rows:
    """The methods that no other one beats in both errors at their cost or less, cheapest first, and the pipeline's own run."""
    points = {x: (study.cost(x), *(float(study.images(x, name).mean()) for name in ERRORS)) for x in study.labels}
    values = np.array(list(points.values()))
    beaten = [x for x, mine in points.items() if np.any(np.all(values <= mine, axis=1) & np.any(values < mine, axis=1))]
    own = points[FULL20]
    rows: Rows = []
    for label in sorted(points, key=lambda x: (*points[x], x)):
        if label in beaten and label != FULL20:
            continue
        cost, distance, rmse = points[label]
        enough = "yes" if distance <= own[1] and rmse <= own[2] else "no"
        rows.append([label, f"{cost:.0f}", f"{distance:.3f}", f"{rmse:.2f}", enough])
    return rows


def tuned(study: Study) -> Rows:
    """Each cache's setting of least pixel error within the smaller budget of the tuning, a share of the pipeline's own run."""
    rows: Rows = []
    within = [x for x in study.labels if study.cost(x) <= min(BUDGETS) * study.cost(FULL20)]
    for cache in CACHES:
        known = [x for x in within if study.record(x).family == cache]
        label = min(known, key=lambda x: float(study.images(x, "rmse").mean()), default=None)
        if label is not None:
            errors = f"{study.images(label, 'feature_distance').mean():.3f}", f"{study.images(label, 'rmse').mean():.2f}"
            rows.append([label, f"{study.cost(label):.0f}", *errors])
    return rows


def section(preset: str, title: str, study: Study) -> str:
    """The table of one model."""
    spec = study.run.spec
    head = "method", "block evaluations", "feature distance", "pixel RMSE", "no more than that of 20 steps"
    sampled = f"N = {spec['samples']} images, seed {spec['seed']}, guidance {spec['guidance']}"
    about = f"`{preset}`: {sampled}, {len(study.labels)} methods."
    within = f"Caches on 20 steps, the best setting of each within {min(BUDGETS):.0%} of their cost:"
    return (
        "\n\n".join([f"## {title}", about, table(*head, rows=best(study)), within, table(*head[:-1], rows=tuned(study))]) + "\n"
    )


def main(
    only: Annotated[str | None, typer.Option(help="One of the study's presets.")] = None,
    out: Annotated[Path, typer.Option(help="Where the runs go.")] = Path("runs"),
) -> None:
    """Run what is missing, then write the page."""
    console, sections = Console(), []
    for title, preset in MODELS.items():
        if only not in (None, preset):
            continue
        spec = load_spec(preset)
        held_in = Path(spec.pipeline) / ("prompts-train.txt" if spec.task == "text" else "prompts-all.txt")
        overrides: dict[str, Any] = {
            "samples": SAMPLES,
            "seed": SEED,
            "prompts": str(held_in),
            "methods": METHODS,
            "metrics": ("psnr", "feature_distance"),
            "timing": {"rounds": 0, "warmup": 0},
        }
        sections.append(section(preset, title, run_study(preset, overrides, out, console)))
    put_sections(DOC, sections)


if __name__ == "__main__":
    typer.run(main)
