"""``ilf-bench list``."""

from __future__ import annotations

from harness.commands.run import BUILT_IN
from harness.errors import HarnessError
from harness.loading import quiet_libraries
from harness.spec import load_spec, locate, preset_names
from metrics.context import MetricContext
from metrics.table import METRICS


def describe_methods() -> list[tuple[str, str]]:
    """Name and first line of the docstring."""
    return [(name, (kind.__doc__ or "").strip().splitlines()[0]) for name, kind in BUILT_IN.items()]


def describe_metrics() -> list[tuple[str, str]]:
    """Name and title, unit and direction, for the bundled scorers; what only published networks measure says so."""
    quiet_libraries()
    context = MetricContext(locate("zoo/scorers"), "text", "cpu", locate("zoo/tiny-pixart/reference.npz"))
    rows = []
    for name, build in METRICS.items():
        try:
            metric = build(context)
            rows.append((name, f"{metric.title}; {metric.unit or 'no unit'}; {metric.direction} is better; N >= {metric.floor}"))
        except HarnessError as error:
            rows.append((name, f"not with the bundled scorers: {error.remedy}"))
    return rows


def describe_presets() -> list[tuple[str, str]]:
    """Name; title, weights, memory where it is much, and the published number to reproduce."""
    rows = []
    for name in preset_names():
        spec = load_spec(name)
        memory = f"; about {spec.memory_gib:g} GiB on the device" if spec.memory_gib else ""
        anchor = f"; published: {spec.anchor.text}" if spec.anchor else ""
        rows.append((name, f"{spec.title}; {spec.pipeline}{memory}{anchor}"))
    return rows
