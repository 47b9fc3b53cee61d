"""``ilf-bench list``: the methods, metrics and presets of this installation."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated

import typer
from rich.table import Column, Table

from harness.errors import HarnessError, UsageError
from harness.terminal import terminal_text
from ilf_bench.console import console

NAMED = ("name", "description")
PRESETS = ("name", "description and whose weights", "published number of the full run", "device memory, estimated", "command")


def list_(what: Annotated[str, typer.Argument(help="methods, metrics or presets")]) -> None:
    """What this installation knows."""
    tables = {"methods": (NAMED, methods), "metrics": (NAMED, metrics), "presets": (PRESETS, presets)}
    if what not in tables:
        raise UsageError(expected="methods, metrics or presets", got=repr(what), remedy="ilf-bench list methods")
    columns, rows = tables[what]
    console.print(_table(columns, rows()))


def _table(columns: Iterable[str], rows: Iterable[tuple[str, ...]]) -> Table:
    table = Table(*(Column(name, overflow="fold") for name in columns))
    for row in rows:
        table.add_row(*map(terminal_text, row))
    return table


def methods() -> list[tuple[str, ...]]:
    """Name and first line of the docstring."""
    from ilf_bench.registry import BUILT_IN

    return [(name, (kind.__doc__ or "").strip().splitlines()[0]) for name, kind in BUILT_IN.items()]


def metrics() -> list[tuple[str, ...]]:
    """Name and title, unit and direction, for the bundled scorers; what only published networks measure says so."""
    from harness.models.loading import quiet_libraries
    from harness.paths import locate
    from metrics.context import MetricContext
    from metrics.table import METRICS

    quiet_libraries()
    context = MetricContext(locate("zoo/scorers"), "text", "cpu", locate("zoo/tiny-pixart/reference.npz"))
    rows: list[tuple[str, ...]] = []
    for name, build in METRICS.items():
        try:
            metric = build(context)
            rows.append((name, f"{metric.title}; {metric.unit or 'no unit'}; {metric.direction} is better; N >= {metric.floor}"))
        except HarnessError as error:
            rows.append((name, f"not with the bundled scorers: {error.remedy}"))
    return rows


def presets() -> list[tuple[str, ...]]:
    """A row of :data:`PRESETS` for each bundled preset. Nothing is downloaded."""
    from harness.config.spec import load_spec, preset_names

    rows: list[tuple[str, ...]] = []
    for name in preset_names():
        spec = load_spec(name)
        memory = f"{spec.memory_gib:g} GiB" if spec.memory_gib else ""
        anchors = "; ".join(anchor.text for anchor in spec.anchors)
        rows.append((name, f"{spec.title}; {spec.pipeline}", anchors, memory, f"ilf-bench run {name}"))
    return rows
