"""Does a judge that is not ours agree with ours? Rebuilds docs/results/judge.md from the bundled checkpoints.

    python -m studies.judge                    # resumes
    python -m studies.judge --samples 1000

The runs are those of the ILF study (presets/ilf-study-*.yaml) with fewer methods and images and without timing. The judge is
EfficientNet-Lite0 as trained on ImageNet: no training here has seen it, where the feature distance, too, is of a network of ours.
"""

from __future__ import annotations

from itertools import combinations
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from scipy.stats import kendalltau

from harness.paths import ROOT
from harness.results import BASELINE
from harness.statistics import paired_difference
from studies.ilf_study import MODELS
from studies.reuse import run_study
from studies.study import JUDGE, Study, ours, spaced, standard
from studies.study_tables import Rows, percent, put_sections, table

DOC = ROOT / "docs" / "results" / "judge.md"
PRESETS = ("ilf-study-text", "ilf-study-class")  # tiny-sd3's module is not trained for the step counts of METHODS
SAMPLES = 300
METHODS = (
    "full",
    *(f"steps:{n}" for n in (20, 8, 7, 6, 5)),
    *(f"steps:{n}+spacing:1.5" for n in (10, 8, 7)),
    "steps:20+fora:interval=3",
    "steps:20+taylorseer:interval=3:order=1",
    *(f"ilf:steps={n}" for n in (5, 6, 7)),
)
METRICS = ("psnr", "feature_distance", "kd_efficientnet", JUDGE)
ERRORS = ("feature_distance", "rmse", JUDGE)


def overview(study: Study) -> str:
    """Every method, cheapest first: errors to the converged sample by our network, by the pixels and by the judge."""
    rows: Rows = []
    for label in sorted(study.labels, key=lambda x: (study.cost(x), x)):
        mine, pixels, judged = (study.images(label, name).mean() for name in ERRORS)
        rows.append(
            [label, f"{study.cost(label):.0f}", f"{mine:.3f}", f"{pixels:.2f}", f"{judged:.2f}", kernel_distance(study, label)]
        )
    rows.append(["the converged sample", f"{study.cost(BASELINE):.0f}", "0", "0", "0", kernel_distance(study, BASELINE)])
    return table(
        "method",
        "block evaluations",
        "feature distance",
        "pixel RMSE",
        "EfficientNet distance",
        "KD-EfficientNet x 1000",
        rows=rows,
    )


def kernel_distance(study: Study, label: str) -> str:
    """To the real images, unbiased."""
    return f"{1000 * study.images(label, 'kd_efficientnet').mean():.3g}"


def order(study: Study, label: str, other: str, metric: str) -> int:
    """-1 or 1 where a method's error is shown to be smaller or larger than another's, paired over images; else 0."""
    found = paired_difference(study.images(label, metric), study.images(other, metric))
    return (found.low > 0) - (found.high < 0)


def agreement(study: Study, metric: str) -> list[str]:
    """How the judge's order of the methods compares with a metric's."""
    means = [[float(study.images(label, name).mean()) for label in study.labels] for name in (metric, JUDGE)]
    orders = [(order(study, a, b, metric), order(study, a, b, JUDGE)) for a, b in combinations(study.labels, 2)]
    both = [(mine, theirs) for mine, theirs in orders if mine and theirs]
    against = sum(mine != theirs for mine, theirs in both)
    tau = float(kendalltau(*means).statistic)
    return [metric, f"{tau:.2f}", str(len(orders)), str(len(both)), str(against)]


def duels(study: Study) -> Rows:
    """Each ILF row against the next more expensive rival on plain and on spaced timesteps."""
    rows: Rows = []
    for label in ours(study):
        for family in (standard(study), spaced(study)):
            rival = study.next_rival(label, family)
            if rival is not None:
                names = f"{label} ({study.cost(label):.0f})", f"{rival} ({study.cost(rival):.0f})"
                rows.append([*names, *(percent(study.lower(label, rival, metric)) for metric in ERRORS)])
    return rows


def section(title: str, preset: str, study: Study) -> str:
    """The tables of one model."""
    spec = study.run.spec
    lower = [f"{name} lower by" for name in ("feature distance", "pixel RMSE", "EfficientNet distance")]
    pairs = "pairs that both tell apart", "of these, ordered the other way round"
    parts = [
        f"## {title}",
        f"Written by `python -m studies.judge --samples {spec['samples']} --only {preset}`.",
        f"N = {spec['samples']} images, seed {spec['seed']}, guidance {spec['guidance']}, float32.",
        overview(study),
        "Does the judge order the methods as this metric does?",
        table("metric", "Kendall's tau", "pairs", *pairs, rows=[agreement(study, name) for name in ERRORS[:2]]),
        "Equal cost: each module against the next more expensive rival",
        table("method (cost)", "rival (cost)", *lower, rows=duels(study)),
    ]
    return "\n\n".join(parts) + "\n"


def main(
    samples: Annotated[int, typer.Option(help="Images per method.")] = SAMPLES,
    only: Annotated[str | None, typer.Option(help="One preset of the two.")] = None,
    out: Annotated[Path, typer.Option(help="Where the runs go.")] = Path("runs"),
) -> None:
    """Run what is missing, then write the page."""
    console = Console()
    overrides: dict[str, Any] = {"samples": samples, "methods": METHODS, "metrics": METRICS, "timing": {"rounds": 0, "warmup": 0}}
    sections = []
    for title, preset in MODELS.items():
        if only not in (None, preset) or preset not in PRESETS:
            continue
        sections.append(section(title, preset, run_study(preset, overrides, out, console)))
    put_sections(DOC, sections)


if __name__ == "__main__":
    typer.run(main)
