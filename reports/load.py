"""A run as pandas tables, plots and images, for notebooks and for anyone who wants to plot something else."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd

from harness.results import Failure, Score, TimingSample
from harness.statistics import mean_interval
from harness.storage.locations import place
from harness.storage.records import Run, read_run
from reports.analysis.select import failure_of, method_order, metric_order, record_of, samples_of, score_of

if TYPE_CHECKING:
    from PIL.Image import Image

    from reports.render.figures import Drawing

METHOD_COLUMNS = [
    "label",
    "spec",
    "kind",
    "steps",
    "predicted_block_evaluations",
    "block_evaluations",
    "extra_parameters",
    "training_s",
    "note",
]
SCORE_COLUMNS = ["method", "metric", "title", "value", "low", "high", "n", "unit", "direction", "tiny", "fingerprint", "failure"]
PER_IMAGE_COLUMNS = ["method", "metric", "index", "prompt", "value", "influence"]
SUMMARY_COLUMNS = [
    "method",
    "speed_up",
    "speed_up_low",
    "speed_up_high",
    "cost_unit",
    "seconds_per_image",
    "block_evaluations",
    "better_than_steps",
    "provisional",
    "peak_memory_bytes",
    "training_s",
    "calibration_s",
    "failure",
]
VERDICT_COLUMNS = [
    "method",
    "metric",
    "outcome",
    "advantage",
    "low",
    "high",
    "p_adjusted",
    "rival",
    "cost_unit",
    "reason",
]
TIMING_COLUMNS = [*TimingSample.__dataclass_fields__, "seconds_per_image"]


@dataclass(frozen=True, repr=False, eq=False)
class RunResults:
    """One run as tables, plots and images.

    ``methods``: a row per method, with ``failure``. ``scores``: a row per (method, metric); ``low`` and ``high`` bound the 95%
    interval; a score that could not be measured has an empty value and a text in ``failure``. ``per_image``: a row a
    (method, metric, image); ``value`` is what the metric says of that image, empty for metrics that say nothing of one alone
    (FID, KID), and the mean of ``influence`` is the score. ``timings``: a row a timed call, seconds for the batch. ``prompts``: a
    row per image. Further tables are computed on first use: :attr:`summary` and :attr:`verdicts`. In a notebook the object itself
    shows the first screen of the report.
    """

    record: Run
    methods: pd.DataFrame
    scores: pd.DataFrame
    per_image: pd.DataFrame
    timings: pd.DataFrame
    prompts: pd.DataFrame

    @property
    def path(self) -> Path:
        """The folder of the run."""
        return self.record.path

    @cached_property
    def summary(self) -> pd.DataFrame:
        """The table of the report's first screen: a row per method, the fastest first.

        ``speed_up`` is over the full run (95% interval: ``speed_up_low``, ``speed_up_high``), in end-to-end seconds or
        in block evaluations, as ``cost_unit`` says; ``seconds_per_image`` is the median over the rounds. ``better_than_steps``
        answers whether an accelerator beats fewer steps at equal cost (empty for step counts); ``provisional`` says what is too
        few for a firm answer. ``peak_memory_bytes``, ``training_s`` and ``calibration_s`` are empty where nothing was recorded;
        ``failure`` is why a method has no numbers.
        """
        from reports.analysis.frames import summary_rows

        return pd.DataFrame(summary_rows(self.record), columns=SUMMARY_COLUMNS)

    @cached_property
    def verdicts(self) -> pd.DataFrame:
        """Is it better than fewer steps at equal cost? A row per (accelerator, metric), with the reason for each answer.

        ``outcome``: ``yes``, ``worse``, ``not better, more expensive``, ``can't tell`` or ``not measured``. ``advantage``: the
        method's score less the rival's in the metric's unit, turned so that positive is better, with its 95% interval
        (``low``, ``high``). ``p_adjusted`` is corrected (Holm) over all rows and decides. ``rival``: the fewer-steps rows that
        have the same cost together, with their shares of the images. ``cost_unit``: what "equal cost" is counted in.
        """
        from reports.analysis.frames import verdict_rows

        return pd.DataFrame(verdict_rows(self.record), columns=VERDICT_COLUMNS)

    def plot(self, metric: str | None = None, cost: Literal["seconds", "blocks"] | None = None) -> Drawing:
        """One metric (default: the report's) against ``cost`` per image: end-to-end seconds where timed, or block evaluations.

        A notebook shows the result; its ``svg`` and ``pdf`` are bytes. Raises :class:`harness.errors.UsageError` where the run
        has no such numbers.
        """
        from reports.render.notebook import drawing

        return drawing(self.record, metric, cost)

    def images(self, prompt: str | int | None = None, methods: Sequence[str] | None = None) -> Image:
        """The images of one prompt (its text, or a sample's index), a row per method, as one picture; default: several prompts.

        All images of a column start from the same noise. Raises :class:`harness.errors.UsageError` where there are none.
        """
        from reports.render.notebook import contact_sheet

        return contact_sheet(self.record, prompt, methods)

    def _repr_html_(self) -> str:
        """The first screen of the report, in a frame of its own."""
        from reports.render.notebook import framed

        return framed(self.record)

    def __repr__(self) -> str:
        return f"RunResults({str(self.path)!r}: {len(self.methods)} methods, {len(self.prompts)} images each)"


def load_run(path: str | Path) -> RunResults:
    """Read a run folder. Raises :class:`harness.errors.ArtifactError` where it is no run or is damaged."""
    return frames(read_run(place(str(path))))


def frames(run: Run) -> RunResults:
    """The tables of a run that is already read."""
    methods, metrics = method_order(run), metric_order(run)
    scores = [score_of(run, method, metric) for method in methods for metric in metrics]
    prompts = _prompts(run)
    timings = pd.DataFrame(
        [asdict(t) | {"seconds_per_image": t.latency_s / t.batch} for t in run.timings], columns=TIMING_COLUMNS
    )
    unmeasured = pd.DataFrame(columns=PER_IMAGE_COLUMNS).astype({"value": float, "influence": float})
    measured = [_per_image(s, prompts) for s in scores if isinstance(s, Score)]
    return RunResults(
        record=run,
        methods=pd.DataFrame([_method_row(run, label) for label in methods], columns=[*METHOD_COLUMNS, "failure"]),
        scores=pd.DataFrame([_score_row(s) for s in scores], columns=SCORE_COLUMNS),
        per_image=pd.concat(measured, ignore_index=True) if measured else unmeasured,
        timings=timings,
        prompts=prompts,
    )


def _method_row(run: Run, label: str) -> dict[str, object]:
    record = record_of(run, label)
    return asdict(record) | {"failure": ""} if record else {"label": label, "failure": failure_of(run, label)}


def _score_row(score: Score | Failure) -> dict[str, object]:
    if isinstance(score, Failure):
        return {"method": score.method, "metric": score.metric, "failure": score.reason}
    interval = mean_interval(score.influence)
    row = {name: getattr(score, name) for name in SCORE_COLUMNS if hasattr(score, name)}
    fingerprint = json.dumps(dict(score.fingerprint), sort_keys=True)
    return row | {"low": interval.low, "high": interval.high, "fingerprint": fingerprint, "failure": ""}


def _prompts(run: Run) -> pd.DataFrame:
    for label in method_order(run):
        if samples := samples_of(run, label):
            return pd.DataFrame({"index": [s.index for s in samples], "prompt": [s.prompt for s in samples]})
    return pd.DataFrame(columns=["index", "prompt"])


def _per_image(score: Score, prompts: pd.DataFrame) -> pd.DataFrame:
    """Values in the order of the manifest; where the counts differ the prompt is left out rather than guessed."""
    known = len(prompts) == score.n
    indices = prompts["index"].to_numpy() if known else np.arange(score.n)
    texts = prompts["prompt"].to_numpy() if known else np.full(score.n, None, dtype=object)
    columns = {"method": score.method, "metric": score.metric, "index": indices, "prompt": texts}
    value = np.full(score.n, np.nan) if score.per_image is None else score.per_image
    return pd.DataFrame(columns | {"value": value, "influence": score.influence})
