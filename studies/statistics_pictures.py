"""The pictures of docs/statistics.md, from the records of one run: ``python -m studies.statistics_pictures RUN``.

RUN is a run of ``tiny-text``, which has fewer steps, accelerators, an A/A pair and null controls in it. Nothing is measured here.
"""

from __future__ import annotations

import sys
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from harness.paths import ROOT
from harness.results import A_A, BASELINE, Failure, Score
from harness.statistics import Interval
from harness.statistics.controls import CONTROLS
from harness.statistics.intervals import mean_interval
from harness.statistics.means import paired_difference
from harness.storage.records import Run, read_run
from reports.analysis.select import rounds_of, same_round_ratio, seconds_per_image

OUT = ROOT / "docs" / "images"
GREY, BLUE, ORANGE, GREEN = "#595959", "#1f5fa8", "#b35900", "#2b7a3d"
PAIRED, STEPS = "8 steps", ("12 steps", "10 steps", "8 steps", "6 steps", "5 steps")
ACCELERATORS = (("deepcache(interval=2)", ORANGE), ("ilf(6 steps)", GREEN))


def score(run: Run, label: str, metric: str) -> Score:
    """A score that the picture needs."""
    found = run.scores[label, metric]
    if isinstance(found, Failure):
        raise SystemExit(f"{label}, {metric}: {found.reason}")
    return found


def whisker(axis: Axes, at: float, interval: Interval, colour: str, text: str) -> None:
    """A value with its interval, and its numbers above it."""
    axis.errorbar(
        at, interval.value, [[interval.value - interval.low], [interval.high - interval.value]], fmt="o", color=colour, capsize=6
    )
    axis.annotate(text, (at, interval.high), (0, 5), textcoords="offset points", ha="center", fontsize=9, color=colour)


def paired(run: Run) -> None:
    """Two scores whose intervals overlap, and their paired difference, which is clear."""
    full, fewer = (score(run, label, "image_reward").influence for label in (BASELINE, PAIRED))
    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(10, 3.6), width_ratios=(1, 1, 0.7))
    for at, values in enumerate((full, fewer)):
        found = mean_interval(values)
        whisker(left, at, found, BLUE, f"{found.value:.3f}")
    left.set(
        title="each score on its own",
        xticks=[0, 1],
        xticklabels=[BASELINE, PAIRED],
        xlim=(-0.6, 1.6),
        ylabel="ImageReward (tiny)",
    )
    left.set_ylim(top=left.get_ylim()[1] + 0.006)
    middle.plot(full, fewer, ".", color=BLUE, alpha=0.4)
    ends = [min(full.min(), fewer.min()), max(full.max(), fewer.max())]
    middle.plot(ends, ends, color=GREY, linewidth=1)
    middle.set(title="the same noise, image by image", xlabel=f"{BASELINE}, per image", ylabel=f"{PAIRED}, per image")
    found = paired_difference(fewer, full)
    interval = Interval(found.value, found.low, found.high)
    whisker(right, 0, interval, ORANGE, f"{found.value:.4f}\n[{found.low:.4f}, {found.high:.4f}]")
    right.axhline(0, color=GREY, linewidth=1)
    right.set(
        title="the paired difference",
        xticks=[0],
        xticklabels=[f"{PAIRED} − {BASELINE}"],
        ylim=(found.low * 1.4, -found.low * 0.5),
    )
    save(figure, "statistics-paired")


def floor(run: Run) -> None:
    """The ratio of two times, round by round: of the A/A pair, and of a method."""
    figure, axis = plt.subplots(figsize=(8, 3.4))
    base = rounds_of(run, BASELINE)
    for label, colour in ((A_A, GREY), *ACCELERATORS):
        times = rounds_of(run, label)
        rounds = sorted(base.keys() & times.keys())
        axis.plot(rounds, [base[n] / times[n] for n in rounds], "o-", color=colour, linewidth=1, markersize=4)
        ratio = same_round_ratio(run, BASELINE, label)
        if ratio is None:
            raise SystemExit(f"{label} was not timed")
        at = max(rounds) + 0.9
        whisker(axis, at, ratio, colour, "")
        axis.annotate(
            f"{label}: {ratio.value:.2f} [{ratio.low:.2f}, {ratio.high:.2f}]",
            (at + 0.25, ratio.value),
            va="center",
            fontsize=9,
            color=colour,
        )
    axis.plot([-0.4, max(base) + 0.4], [1, 1], color=GREY, linewidth=1, linestyle=":")
    axis.set(xlabel="round", ylabel="speed-up in that round", xlim=(-0.4, max(base) + 5.2), xticks=sorted(base))
    save(figure, "statistics-floor")


def equal_cost(run: Run) -> None:
    """Accelerators beside the line of fewer steps, and what each is compared with."""
    figure, axis = plt.subplots(figsize=(8, 4))
    at = {
        label: float(np.median(seconds_per_image(run, label))) * 1000 for label in (*STEPS, *(name for name, _ in ACCELERATORS))
    }
    value = {label: score(run, label, "psnr").value for label in at}
    axis.plot([at[name] for name in STEPS], [value[name] for name in STEPS], "o-", color=GREY)
    for name in STEPS:
        axis.annotate(name, (at[name], value[name]), (6, -11), textcoords="offset points", fontsize=9, color=GREY)
    order = sorted(STEPS, key=lambda name: at[name])
    for name, colour in ACCELERATORS:
        axis.plot(at[name], value[name], "D", color=colour)
        beside = at[name] > at[order[-1]]
        axis.annotate(
            name, (at[name], value[name]), (-8, 6) if beside else (-6, 8), textcoords="offset points", ha="right", color=colour
        )
        rival = float(np.interp(at[name], [at[one] for one in order], [value[one] for one in order]))
        if beside:  # more expensive than every row: held against the most expensive one
            axis.plot([at[order[-1]], at[name]], [rival, rival], ":", color=colour)
        axis.annotate("", (at[name], value[name]), (at[name], rival), arrowprops={"arrowstyle": "<->", "color": colour})
        middle = (value[name] + rival) / 2
        axis.annotate(
            f"{value[name] - rival:+.1f} dB",
            (at[name], middle),
            (-6, 0),
            textcoords="offset points",
            ha="right",
            va="center",
            color=colour,
        )
    axis.set(xlabel="milliseconds per image", ylabel="PSNR to the full run, dB")
    axis.margins(0.12)
    save(figure, "statistics-equal-cost")


def nulls(run: Run) -> None:
    """One metric on images that are known to be wrong, beside the methods."""
    figure, axis = plt.subplots(figsize=(8, 3.8))
    found = [(name, run.controls.get((name, "clip_iqa")), ORANGE) for name in reversed(CONTROLS)]
    found += [
        (name, run.scores[name, "clip_iqa"], BLUE) for name in (*reversed(STEPS), *(name for name, _ in ACCELERATORS), BASELINE)
    ]
    for at, (name, one, colour) in enumerate(found):
        if not isinstance(one, Score):
            raise SystemExit(f"the control {name} was not scored")
        interval = mean_interval(one.influence)
        axis.errorbar(
            interval.value,
            at,
            xerr=[[interval.value - interval.low], [interval.high - interval.value]],
            fmt="o",
            color=colour,
            capsize=4,
        )
    axis.set(xlabel="CLIP-IQA (tiny), higher is better", yticks=range(len(found)), yticklabels=[name for name, _, _ in found])
    axis.grid(axis="x", color="#dddddd")
    save(figure, "statistics-nulls")


def save(figure: Figure, name: str) -> None:
    """As SVG whose bytes depend on the run alone."""
    figure.tight_layout()
    figure.savefig(OUT / f"{name}.svg", metadata={"Date": None})
    plt.close(figure)


def main(folder: Path) -> None:
    """Draw all four."""
    matplotlib.rcParams.update(
        {"svg.hashsalt": "ilf-bench", "axes.spines.top": False, "axes.spines.right": False, "font.size": 10}
    )
    run = read_run(folder)
    for draw in (paired, floor, equal_cost, nulls):
        draw(run)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
