"""Which methods and metrics there are: the built-in tables, and the user's own files."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from baselines.table import BASELINES
from harness.config.description import Plugin
from harness.config.methods import MethodTable
from harness.config.spec import ExperimentSpec
from harness.contracts import Metric
from harness.errors import HarnessError, UsageError
from harness.models.loading import resolve_device
from harness.models.random_weights import is_random
from harness.paths import locate
from harness.results import Failure
from harness.storage.files import digest
from ilf.method import ILF_METHODS
from ilf.untrained import UNTRAINED_METHODS
from metrics.context import MetricContext
from metrics.table import METRICS

BUILT_IN: MethodTable = {**BASELINES, **ILF_METHODS, **UNTRAINED_METHODS}


def load_plugins(files: Sequence[Path]) -> tuple[MethodTable, dict[str, Plugin]]:
    """The ``METHODS`` tables of the user's own files, and the file that each name comes from.

    They are run as Python: only the user names them, on the command line.
    """
    table: dict[str, Any] = {}
    plugins: dict[str, Plugin] = {}
    for file in files:
        spec = importlib.util.spec_from_file_location(file.stem, file)
        if spec is None or spec.loader is None or not file.is_file():
            raise UsageError(expected="a Python file", got=str(file), remedy="see README, 'Your own method'")
        module = importlib.util.module_from_spec(spec)
        try:
            spec.loader.exec_module(module)
            methods = dict(module.METHODS)
        except Exception as error:
            raise UsageError(expected=f"METHODS = {{name: class}} in {file}", got=repr(error), remedy="mend that file") from error
        table |= methods
        plugins |= dict.fromkeys(methods, Plugin(file.name, digest(file.read_bytes())))
    return table, plugins


def build_metrics(spec: ExperimentSpec) -> dict[str, Metric | Failure]:
    """The spec's metrics; one that cannot be built is a failure with a reason, and the others still run.

    With random weights all are: no scorer is asked about such images. Raises :class:`UsageError` on an unknown name.
    """
    check_metrics(spec.metrics)
    if is_random(spec.pipeline):
        return {name: Failure("", name, "NOT-MEASURED: random weights") for name in spec.metrics}
    context = MetricContext(
        locate(spec.scorers),
        spec.task,
        resolve_device(spec.device),
        None if spec.reference is None else locate(spec.reference),
        spec.reference_steps,
    )
    _ = context.networks  # a scorers' file that cannot be read is the command's fault, not a metric's
    built: dict[str, Metric | Failure] = {}
    for name in spec.metrics:
        try:
            built[name] = METRICS[name](context)
        except HarnessError as error:
            built[name] = Failure("", name, str(error))
    return built


def check_metrics(names: Sequence[str]) -> None:
    """Raise :class:`UsageError` on an unknown name."""
    unknown = [name for name in names if name not in METRICS]
    if unknown:
        raise UsageError(expected=f"metrics out of {', '.join(METRICS)}", got=unknown[0], remedy="see ilf-bench list metrics")
