"""The engines of ``ilf-bench run``: what each needs is joined here, in functions that another process can be sent by name."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from harness.errors import UsageError, did_you_mean
from harness.execution.experiment import Experiment
from harness.execution.local import LocalEngine
from harness.execution.sampler import Sampler
from harness.execution.scorer import Scorer
from harness.execution.tasks import SCORE_BATCH, Engine
from harness.models.loading import quiet_libraries
from harness.storage.locations import is_local
from ilf_bench.plugins import plugin_modules
from ilf_bench.registry import build_metrics
from metrics.table import MetricTable

if TYPE_CHECKING:
    from harness.execution.ray import ClusterOptions

EngineMaker = Callable[[Experiment, Path, MetricTable], Engine]
ENGINES = ("local", "ray")
NONE: MetricTable = {}


def make_scorer(experiment: Experiment, folder: Path, device: str, size: int, own: MetricTable = NONE) -> Scorer:
    """A scorer with the metrics of the experiment, ``own`` among them, built on ``device`` for ``size`` images at a time."""
    quiet_libraries()
    spec = experiment.spec.model_copy(update={"device": device})
    return Scorer(experiment, folder, build_metrics(spec, own), size)


def local_engine(experiment: Experiment, folder: Path, own: MetricTable = NONE) -> Engine:
    """Everything in this process."""
    scorer = partial(make_scorer, experiment, folder, experiment.spec.device, SCORE_BATCH, own)
    return LocalEngine(partial(Sampler, experiment, folder), scorer)


def cluster_engine(options: ClusterOptions, experiment: Experiment, folder: Path, own: MetricTable = NONE) -> Engine:
    """Actors on a Ray cluster. Raises :class:`UsageError` where other processes could not see the run's folder."""
    from harness.execution.ray import ClusterEngine, send_by_value

    send_by_value(plugin_modules())
    if str(folder).startswith("memory:"):
        raise UsageError(expected="a folder that all workers see", got=str(folder), remedy="a shared folder, s3:// or gs://")
    folder = folder.resolve() if is_local(folder) else folder
    scorer = partial(make_scorer, experiment, folder, options.score_device, options.score_batch, own)
    return ClusterEngine(options, partial(Sampler, experiment, folder), scorer)


def choose_engine(name: str, options: Callable[[], ClusterOptions]) -> EngineMaker:
    """The engine by its name. Raises :class:`UsageError` where it is unknown, or its package is not installed."""
    if name not in ENGINES:
        raise UsageError(
            expected=f"an engine out of {', '.join(ENGINES)}",
            got=repr(name),
            remedy=f"{did_you_mean(name, ENGINES)}--engine local",
        )
    if name == "local":
        return local_engine
    try:
        return partial(cluster_engine, options())
    except ImportError as error:
        raise UsageError(expected="the package ray", got=str(error), remedy="pip install 'ilf-bench[ray]'") from error
