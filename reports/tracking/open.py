"""A tracker by what a user calls it: ``mlflow:URI``, ``wandb:PROJECT``, ``tensorboard:FOLDER``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from harness.errors import UsageError
from reports.tracking.base import Tracker
from reports.tracking.mlflow import MlflowTracker
from reports.tracking.tensorboard import TensorboardTracker
from reports.tracking.wandb import WandbTracker

TRACKERS: dict[str, Callable[[str, Path], Tracker]] = {
    "mlflow": MlflowTracker,
    "wandb": WandbTracker,
    "tensorboard": TensorboardTracker,
}


def open_tracker(text: str, out: Path) -> Tracker:
    """The tracker that ``text`` (KIND or KIND:WHERE) names; ``out`` is the folder of runs, beside which local stores lie.

    Raises :class:`UsageError` for an unknown kind and where its package is not installed.
    """
    kind, _, where = text.partition(":")
    if kind not in TRACKERS:
        raise UsageError(
            expected=f"one of {', '.join(TRACKERS)} before the colon of --track", got=repr(kind), remedy="--track wandb:PROJECT"
        )
    return TRACKERS[kind](where, out)
