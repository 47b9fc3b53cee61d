"""The front door of ilf-bench: what users, and authors of methods and metrics, import. Each name is loaded when it is first used.

>>> import ilf_bench
>>> ilf_bench.load_run("runs/tiny-text-...").timings  # doctest: +SKIP

**Read runs** (without torch): :func:`load_run`, :func:`read_run`, :func:`read_measurement`, :func:`score_difference`.
**Make runs**: :func:`run`; :func:`benchmark` on a diffusers pipeline in memory; or, step by step, :func:`prepare` and then
:func:`dry_run` or :func:`execute`; :func:`build_report`. The first two return :class:`RunResults`, as :func:`load_run` does.
**Use ILF in a diffusers pipeline of one's own**: :func:`apply`.
**Write a method**: :class:`Method` and what it works on; ``ilf_bench.testing`` holds it to its contract. docs/add-a-method.md.
**Write a metric**: :class:`Metric`, or the base classes :class:`BaseMetric` and :class:`FeatureMetric`. docs/metrics.md.
**Errors**: all are :class:`HarnessError`, and say what was expected, what was found and what helps.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from harness.config.spec import ExperimentSpec, load_spec
    from harness.contracts import Batch, Method, Metric, SpeedOnly, Trained, Unmeasurable
    from harness.cost.plan import Backbone, Plan, StepCost
    from harness.errors import ArtifactError, HarnessError, NotMeasured, UsageError
    from harness.results import Failure, MethodRecord, Score, TimingSample, UpfrontCost
    from harness.sampling.branches import conditional_only
    from harness.sampling.patching import patched
    from harness.sampling.pipeline import Pipeline
    from harness.statistics import score_difference
    from harness.storage.measurements import read_measurement
    from harness.storage.records import Run, read_run
    from ilf.apply import apply
    from ilf_bench.experiment import DryRun, Executed, Prepared, dry_run, execute, prepare, run
    from ilf_bench.in_memory import benchmark
    from metrics.base import BaseMetric, FeatureMetric
    from metrics.context import MetricContext
    from reports.load import RunResults, load_run
    from reports.render.build import build_paper, build_report

_MODULES = {
    "harness.config.spec": ("ExperimentSpec", "load_spec"),
    "harness.contracts": ("Batch", "Method", "Metric", "SpeedOnly", "Trained", "Unmeasurable"),
    "harness.cost.plan": ("Backbone", "Plan", "StepCost"),
    "harness.errors": ("ArtifactError", "HarnessError", "NotMeasured", "UsageError"),
    "harness.results": ("Failure", "MethodRecord", "Score", "TimingSample", "UpfrontCost"),
    "harness.sampling.branches": ("conditional_only",),
    "harness.sampling.patching": ("patched",),
    "harness.sampling.pipeline": ("Pipeline",),
    "harness.statistics": ("score_difference",),
    "harness.storage.measurements": ("read_measurement",),
    "harness.storage.records": ("Run", "read_run"),
    "ilf.apply": ("apply",),
    "ilf_bench.experiment": ("DryRun", "Executed", "Prepared", "dry_run", "execute", "prepare", "run"),
    "ilf_bench.in_memory": ("benchmark",),
    "metrics.base": ("BaseMetric", "FeatureMetric"),
    "metrics.context": ("MetricContext",),
    "reports.load": ("RunResults", "load_run"),
    "reports.render.build": ("build_paper", "build_report"),
}
_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names}

__all__ = [
    "ArtifactError",
    "Backbone",
    "BaseMetric",
    "Batch",
    "DryRun",
    "Executed",
    "ExperimentSpec",
    "Failure",
    "FeatureMetric",
    "HarnessError",
    "Method",
    "MethodRecord",
    "Metric",
    "MetricContext",
    "NotMeasured",
    "Pipeline",
    "Plan",
    "Prepared",
    "Run",
    "RunResults",
    "Score",
    "SpeedOnly",
    "StepCost",
    "TimingSample",
    "Trained",
    "Unmeasurable",
    "UpfrontCost",
    "UsageError",
    "apply",
    "benchmark",
    "build_paper",
    "build_report",
    "conditional_only",
    "dry_run",
    "execute",
    "load_run",
    "load_spec",
    "patched",
    "prepare",
    "read_measurement",
    "read_run",
    "run",
    "score_difference",
]


def __getattr__(name: str) -> Any:
    """Load a name's module on first use, and keep the name (PEP 562)."""
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(importlib.import_module(_MODULE_OF[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
