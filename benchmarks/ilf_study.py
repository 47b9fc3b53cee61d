"""Does ILF win, and does the loop earn its cost? Rebuilds docs/ilf-study.md from the bundled checkpoints.

    python -m benchmarks.ilf_study                    # everything; resumes; about an hour of one thread a model
    python -m benchmarks.ilf_study --samples 200      # a quick look, not written to docs/

Each model is one run of a preset (presets/ilf-study-*.yaml) on a held-out seed, and held-out captions for the text model.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import matplotlib.pyplot as plt
import numpy as np
import typer
from rich.console import Console

from benchmarks.reuse import linked_run
from harness.commands.engines import local_engine
from harness.commands.run import execute, prepare
from harness.contracts import BASELINE, FloatArray, Score
from harness.loading import load_pipeline
from harness.records import Run, read_measurement, read_run
from harness.spec import load_spec
from harness.statistics import Estimate, Interval, paired_difference, time_ratio
from reports.select import record_of, rounds_of

MODELS = {"tiny-pixart (captions never trained on)": "ilf-study-text", "tiny-dit": "ilf-study-class"}
FULL20, BLIND = "20 steps", "5 steps"
SCORES = ("fid", "clip_score", "clip_iqa", "image_reward")
MARGIN = 0.10  # of the drop from 20 to 5 steps
DOC = Path(__file__).parents[1] / "docs" / "ilf-study.md"


@dataclass(frozen=True)
class Row:
    """A method of a study: its cost in block evaluations an image, and errors to the converged sample."""

    label: str
    cost: float
    distance: float
    rmse: float
    speed: Interval


class Study:
    """One model's run. Errors are a feature distance and a pixel RMSE (0..255) to the converged sample of the same noise."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.labels = [record.label for record in run.methods if record.label != BASELINE]  # that is the reference itself

    def images(self, label: str, metric: str) -> FloatArray:
        """One value an image [N]; ``rmse`` is made of the squared errors that PSNR measured."""
        if metric == "rmse":
            squared = read_measurement(self.run.path, label, "psnr")
            if squared is None:
                raise SystemExit(f"{label}: no squared errors in {self.run.path}")
            return 255 * np.sqrt(squared[:, 0])
        score = self.run.scores[(label, metric)]
        if not isinstance(score, Score):
            raise SystemExit(f"{label}: {metric} could not be measured: {score.reason}")
        return score.per_image

    def cost(self, label: str) -> float:
        """Block evaluations an image, counted."""
        record = record_of(self.run, label)
        assert record is not None and record.block_evaluations is not None
        return record.block_evaluations

    def speed(self, label: str) -> Interval:
        """How many times faster than the pipeline's 20 steps, over interleaved rounds."""
        return self.against(label, FULL20)

    def row(self, label: str) -> Row:
        """Everything of one method."""
        distance, rmse = (float(self.images(label, name).mean()) for name in ("feature_distance", "rmse"))
        return Row(label, self.cost(label), distance, rmse, self.speed(label))

    def next_rival(self, label: str, rivals: list[str]) -> str | None:
        """The best of the cheapest rivals that cost at least as much."""
        dearer = [(self.cost(r), float(self.images(r, "feature_distance").mean()), r) for r in rivals]
        dearer = sorted(x for x in dearer if x[0] >= self.cost(label))
        return dearer[0][2] if dearer else None

    def lower(self, label: str, rival: str, metric: str) -> Estimate:
        """By how much of the rival's mean error this method's is lower (1: no error left); paired over images."""
        ours, theirs = self.images(label, metric), self.images(rival, metric)
        return paired_difference(1 - ours / theirs.mean(), 1 - theirs / theirs.mean())

    def worse(self, label: str, against: str, metric: str) -> Estimate:
        """How much worse a score is: positive means worse, whatever the metric's direction."""
        score = self.run.scores[(label, metric)]
        assert isinstance(score, Score)
        sign = -1.0 if score.direction == "higher" else 1.0
        return paired_difference(sign * self.images(label, metric), sign * self.images(against, metric))

    def margin(self, metric: str) -> float | None:
        """A tenth of the drop from 20 to 5 steps; None where the metric cannot see that drop."""
        drop = self.worse(BLIND, FULL20, metric)
        margin = MARGIN * drop.value
        return margin if drop.low > margin > 0 else None

    def trained(self) -> list[str]:
        """Rows of trained modules, on the steps that they were trained for."""
        return [x for x in self.labels if x.startswith("ilf-") or (x.startswith("ilf(") and "feedback" not in x)]

    def loses_nothing(self, label: str) -> tuple[list[str], bool]:
        """Scores that are not shown non-inferior to 20 steps, and whether the error is no larger than theirs."""
        margins = {name: self.margin(name) for name in SCORES}
        failing = [n for n, margin in margins.items() if margin is not None and self.worse(label, FULL20, n).high > margin]
        errors = all(self.images(label, m).mean() <= self.images(FULL20, m).mean() for m in ("feature_distance", "rmse"))
        return failing, errors

    def fastest(self, labels: list[str]) -> str | None:
        """The fastest of those that lose nothing measurable."""
        passing = [label for label in labels if self.loses_nothing(label) == ([], True)]
        return max(passing, key=lambda label: self.speed(label).value, default=None)

    def against(self, label: str, rival: str) -> Interval:
        """How many times faster than a rival, over interleaved rounds."""
        ours, theirs = rounds_of(self.run, label), rounds_of(self.run, rival)
        shared = sorted(set(ours) & set(theirs))
        return time_ratio(np.array([theirs[r] for r in shared]), np.array([ours[r] for r in shared]))


def standard(study: Study) -> list[str]:
    """The pipeline with fewer steps on its usual timesteps, with three solvers."""
    return [
        x for x in study.labels if x.split(" + ")[0].endswith("steps") and x != FULL20 and "spacing" not in x and "cache" not in x
    ]


def spaced(study: Study) -> list[str]:
    """The pipeline with fewer steps on timesteps spaced as ILF's."""
    return [x for x in study.labels if "spacing" in x]


def learned(study: Study) -> list[str]:
    """Solvers learned end to end, without any module."""
    return [x for x in study.labels if x.startswith("bespoke")]


def overview(study: Study) -> list[str]:
    """Every method, cheapest first."""
    lines = [
        "| method | block evaluations | times faster than 20 steps | feature distance | pixel RMSE | " + " | ".join(SCORES) + " |"
    ]
    lines.append("|---" * (5 + len(SCORES)) + "|")
    for row in sorted((study.row(x) for x in study.labels), key=lambda r: (r.cost, r.label)):
        scores = " | ".join(f"{study.images(row.label, name).mean():.4g}" for name in SCORES)
        lines.append(f"| {row.label} | {row.cost:.0f} | {times(row.speed)} | {row.distance:.3f} | {row.rmse:.2f} | {scores} |")
    return lines


def equal_cost(study: Study) -> list[str]:
    """Each trained module against the next dearer rival of each kind."""
    lines = [
        "| method (cost) | rival (cost) | feature distance lower by | pixel RMSE lower by | scores that are worse |",
        "|---|---|---|---|---|",
    ]
    caches = [x for x in study.labels if "cache" in x]
    for label in study.trained():
        without = [x for x in study.labels if "feedback=none" in x]
        for rivals in (standard(study), spaced(study), learned(study), without, caches):
            rival = study.next_rival(label, rivals)
            if rival is None:
                continue
            errors = [percent(study.lower(label, rival, m)) for m in ("feature_distance", "rmse")]
            worse = [m for m in SCORES if study.worse(label, rival, m).low > 0]
            cells = (
                f"{label} ({study.cost(label):.0f})",
                f"{rival} ({study.cost(rival):.0f})",
                *errors,
                ", ".join(worse) or "none",
            )
            lines.append("| " + " | ".join(cells) + " |")
    return lines


def no_loss(study: Study) -> list[str]:
    """Which methods lose nothing measurable against 20 steps, and how much faster they are."""
    blind = [name for name in SCORES if study.margin(name) is None]
    lines = [f"Too blind to count (cannot tell 5 steps from 20): {', '.join(blind) or 'none'}.", ""]
    lines += [
        "| method | times faster | scores not shown non-inferior | error no larger than that of 20 steps | passes |",
        "|---|---|---|---|---|",
    ]
    for label in study.labels:
        if label == FULL20:
            continue
        failing, errors = study.loses_nothing(label)
        passes = errors and not failing
        cells = (label, times(study.speed(label)), ", ".join(failing) or "none", yes(errors), yes(passes))
        lines.append("| " + " | ".join(cells) + " |")
    untrained = [x for x in study.labels if x != FULL20 and not x.startswith(("ilf", "bespoke"))]
    kinds = {"ILF": study.trained(), "untrained rival": untrained, "learned solver without a module": learned(study)}
    fastest = {kind: study.fastest(labels) for kind, labels in kinds.items()}
    lines += ["", *(f"- Fastest {kind} that passes: {label or 'none'}." for kind, label in fastest.items())]
    for kind in list(kinds)[1:]:
        ours, rival = fastest["ILF"], fastest[kind]
        if ours and rival:
            lines.append(f"- {ours} against {rival}: {times(study.against(ours, rival))} times as fast.")
    return lines


def ledger(study: Study) -> list[str]:
    """What training cost and when it has paid back, in images against 20 steps."""
    lines = [
        "| method | training, device-seconds | extra parameters | images after which it has paid back |",
        "|---|---|---|---|",
    ]
    for label in study.trained():
        record = record_of(study.run, label)
        assert record is not None
        seconds = record.training_s or 0.0
        batch = study.run.spec["timing"]["batch"]
        saved = (
            np.median(list(rounds_of(study.run, FULL20).values())) - np.median(list(rounds_of(study.run, label).values()))
        ) / batch
        pays = f"{seconds / saved:,.0f}" if saved > 0 else "never"
        lines.append(f"| {label} | {seconds:.0f} | {record.extra_parameters:,} | {pays} |")
    return lines


def percent(estimate: Estimate) -> str:
    """A share with its interval, in percent."""
    return f"{100 * estimate.value:.0f}% ({100 * estimate.low:.0f}..{100 * estimate.high:.0f})"


def times(ratio: Interval) -> str:
    """A ratio of times with its interval."""
    return f"{ratio.value:.2f} ({ratio.low:.2f}..{ratio.high:.2f})"


def yes(value: bool) -> str:
    """A word for a table."""
    return "yes" if value else "no"


def draw(study: Study, path: Path) -> None:
    """Error against cost, one line a family; the dashed line is the error of 20 steps."""
    families = {
        "steps, own timesteps": [x for x in standard(study) if "+" not in x],
        "steps + spacing(1.5)": [x for x in spaced(study) if x.count("+") == 1],
        "learned solver alone": learned(study),
        "ilf": [x for x in study.trained() if x.startswith("ilf(")],
        "ilf-adapter (no loop)": [x for x in study.trained() if x.startswith("ilf-adapter")],
        "deepcache": [x for x in study.labels if "deepcache" in x],
        "ilf-paper": [x for x in study.trained() if x.startswith("ilf-paper")],
    }
    colours = ("#555555", "#E69F00", "#009E73", "#0072B2", "#CC79A7", "#D55E00", "#56B4E9")  # Okabe and Ito's, safe for all eyes
    figure, axes = plt.subplots(figsize=(8, 4), layout="constrained")
    for (name, labels), colour, marker in zip(families.items(), colours, "osD^vXP", strict=True):
        points = sorted((study.cost(x), float(study.images(x, "feature_distance").mean())) for x in labels)
        axes.plot(*zip(*points, strict=True), color=colour, marker=marker, label=name)
    axes.axhline(float(study.images(FULL20, "feature_distance").mean()), color="black", linestyle="--", label="20 steps (480)")
    axes.set(xlabel="block evaluations an image", ylabel="feature distance to the converged sample", yscale="log")
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter("{x:g}")
    figure.legend(fontsize=8, loc="outside right upper")
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


def section(title: str, study: Study) -> str:
    """All tables of one model."""
    spec, machine = study.run.spec, study.run.environment
    parts = [
        f"## {title}",
        f"N = {spec['samples']} images, seed {spec['seed']}, guidance {spec['guidance']}; {machine.get('device', '')}.",
        f"![Error against cost](images/{spec['name']}.svg)",
        "### Every method", *overview(study),
        "### Equal cost: each module against the next dearer rival", *equal_cost(study),
        "### Speed at no measurable loss", *no_loss(study),
        "### What training cost", *ledger(study),
    ]  # fmt: skip
    text = ""
    for part in parts:
        text += part + ("\n" if part.startswith("|") else "\n\n")
        if part == parts[-1]:
            text += "\n"
    return text.replace("|\n###", "|\n\n###")


def put_tables(page: Path, tables: str) -> None:
    """Replace what stands behind the page's mark; the words before it stay."""
    head, mark, _ = page.read_text().partition("<!-- tables -->")
    page.write_text(f"{head}{mark}\n\n{tables}")


def main(
    samples: Annotated[int | None, typer.Option(help="Images a method; default: the preset's.")] = None,
    out: Annotated[Path, typer.Option(help="Where the runs go.")] = Path("runs"),
    only: Annotated[str | None, typer.Option(help="One preset of the two.")] = None,
) -> None:
    """Run what is missing, then write the page."""
    console = Console()
    sections = []
    for title, preset in MODELS.items():
        if only not in (None, preset):
            continue
        prepared = prepare(preset, {} if samples is None else {"samples": samples}, ())
        run, _, _ = linked_run(prepared.experiment, load_pipeline(load_spec(preset)), out)
        execute(prepared, run.parent, console, local_engine)
        study = Study(read_run(run))
        draw(study, DOC.parent / "images" / f"{preset}.svg")
        sections.append(section(title, study))
    tables = "\n".join(sections)
    if samples is None and only is None:
        put_tables(DOC, tables)
    else:
        print(tables)


if __name__ == "__main__":
    typer.run(main)
