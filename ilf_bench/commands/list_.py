"""``ilf-bench list``: the methods, metrics and presets of this installation."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Column, Table

from harness.errors import HarnessError, UsageError, did_you_mean
from harness.terminal import terminal_text
from ilf_bench.console import console
from ilf_bench.options import Plugins

if TYPE_CHECKING:
    from metrics.context import MetricContext

METHODS = ("name", "options and their defaults", "description")
METRICS = ("name", "description")
PRESETS = ("name", "description", "published number of the full run", "device memory, estimated")


def list_(
    what: Annotated[str, typer.Argument(metavar="methods|metrics|presets", help="What to list.")], plugins: Plugins = None
) -> None:
    """List the methods, metrics or presets of this installation, and those of a plugin."""
    tables = {"methods": (METHODS, methods), "metrics": (METRICS, metrics), "presets": (PRESETS, presets)}
    if what not in tables:
        remedy = f"{did_you_mean(what, tables)}for example ilf-bench list methods"
        raise UsageError(expected="methods, metrics or presets", got=repr(what), remedy=remedy)
    columns, rows = tables[what]
    console.print(_table(columns, rows(plugins or ())))


def _table(columns: Iterable[str], rows: Iterable[tuple[str, ...]]) -> Table:
    table = Table(*(Column(name, overflow="fold") for name in columns))
    for row in rows:
        table.add_row(*map(terminal_text, row))
    return table


def methods(plugins: Sequence[Path] = ()) -> list[tuple[str, ...]]:
    """Name, options with their defaults, and the first line of the docstring."""
    from ilf_bench.registry import Registry

    registry = Registry.of(plugins)
    return [(name, _options(kind), _summary(kind)) for name, kind in registry.methods.items()]


def _options(kind: Any) -> str:
    """The fields of a method's dataclass; one without a default must be given, and ``none`` lets the method choose."""
    shown = []
    for one in fields(kind) if is_dataclass(kind) else ():
        default = one.default_factory() if one.default_factory is not MISSING else one.default
        shown.append(f"{one.name} (required)" if default is MISSING else f"{one.name}={'none' if default is None else default}")
    return ", ".join(shown)


def _summary(kind: Any) -> str:
    return next(iter((kind.__doc__ or "").strip().splitlines()), "")


def _unread_reference(scorers: Path) -> MetricContext:
    """A context that takes no features of reference images: for a list nothing is measured."""
    import numpy as np

    from metrics.base import FeatureExtractor
    from metrics.context import MetricContext
    from metrics.reference import Reference

    class Unread(MetricContext):
        def reference_for(self, extractor: FeatureExtractor, *, spatial: bool = False) -> Reference:
            known = {"extractor": extractor.fingerprint()["extractor"], "data": "none"}
            return Reference(np.zeros((extractor.width + 1, extractor.width), dtype=np.float32), known)

    return Unread(scorers, "text")


def commands() -> list[tuple[str, ...]]:
    """Metrics served by scorer commands, without starting one."""
    from ilf_bench.scorer_commands import command_metrics
    from metrics.command.metric import CommandFactory

    ready = {name: isinstance(factory, CommandFactory) for name, factory in command_metrics(None).items()}
    return [(name, f"a scorer command; {'ready' if good else 'see ilf-bench scorers'}") for name, good in ready.items()]


def metrics(plugins: Sequence[Path] = ()) -> list[tuple[str, ...]]:
    """Name and title, unit and direction, for the bundled scorers; what only published networks measure says so."""
    from harness.models.loading import quiet_libraries
    from harness.paths import locate
    from ilf_bench.registry import Registry

    quiet_libraries()
    context = _unread_reference(locate("zoo/scorers"))
    rows: list[tuple[str, ...]] = []
    for name, build in Registry.of(plugins).metrics.items():
        try:
            metric = build(context)
            rows.append((name, f"{metric.title}; {metric.unit or 'no unit'}; {metric.direction} is better; N >= {metric.floor}"))
        except HarnessError as error:
            rows.append((name, f"not with the bundled scorers: {error.remedy}"))
    return rows + commands()


def presets(plugins: Sequence[Path] = ()) -> list[tuple[str, ...]]:
    """A row of :data:`PRESETS` for each bundled preset. Nothing is downloaded."""
    from harness.config.spec import load_spec, preset_names

    rows: list[tuple[str, ...]] = []
    for name in preset_names():
        spec = load_spec(name)
        memory = f"{spec.memory_gib:g} GiB" if spec.memory_gib else ""
        anchors = "; ".join(anchor.text for anchor in spec.anchors)
        rows.append((name, f"{spec.title}; {spec.pipeline}", anchors, memory))
    return rows
