"""A run as pandas tables, for notebooks and for anyone who wants to plot something else."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from harness.results import Failure, Score, TimingSample
from harness.statistics import mean_interval
from harness.storage.locations import place
from harness.storage.records import Run, read_run
from reports.analysis.select import failure_of, method_order, metric_order, record_of, samples_of, score_of

METHOD_COLUMNS = [
    "label",
    "spec",
    "steps",
    "predicted_block_evaluations",
    "block_evaluations",
    "extra_parameters",
    "training_s",
    "note",
]
SCORE_COLUMNS = ["method", "metric", "title", "value", "low", "high", "n", "unit", "direction", "tiny", "fingerprint", "failure"]
PER_IMAGE_COLUMNS = ["method", "metric", "index", "prompt", "value", "influence"]
TIMING_COLUMNS = [*TimingSample.__dataclass_fields__, "seconds_per_image"]


@dataclass(frozen=True)
class RunFrames:
    """One run as tables.

    ``methods``: a row per method, with ``failure``. ``scores``: a row per (method, metric); ``low`` and ``high`` bound the 95%
    interval; a score that could not be measured has an empty value and a text in ``failure``. ``per_image``: a row a
    (method, metric, image); ``value`` is what the metric says of that image, empty for metrics that say nothing of one alone
    (FID, KID), and the mean of ``influence`` is the score. ``timings``: a row a timed call, seconds for the batch. ``prompts``: a
    row per image.
    """

    methods: pd.DataFrame
    scores: pd.DataFrame
    per_image: pd.DataFrame
    timings: pd.DataFrame
    prompts: pd.DataFrame


def load_run(path: str | Path) -> RunFrames:
    """Read a run folder. Raises :class:`harness.errors.ArtifactError` where it is no run or is damaged."""
    return frames(read_run(place(str(path))))


def frames(run: Run) -> RunFrames:
    """The tables of a run that is already read."""
    methods, metrics = method_order(run), metric_order(run)
    scores = [score_of(run, method, metric) for method in methods for metric in metrics]
    prompts = _prompts(run)
    timings = pd.DataFrame(
        [asdict(t) | {"seconds_per_image": t.latency_s / t.batch} for t in run.timings], columns=TIMING_COLUMNS
    )
    unmeasured = pd.DataFrame(columns=PER_IMAGE_COLUMNS).astype({"value": float, "influence": float})
    measured = [_per_image(s, prompts) for s in scores if isinstance(s, Score)]
    return RunFrames(
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
