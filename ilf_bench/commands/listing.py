"""``ilf-bench list``."""

from __future__ import annotations

from harness.config.spec import load_spec, preset_names
from harness.errors import HarnessError
from harness.models.loading import quiet_libraries
from harness.paths import locate
from ilf_bench.commands.run import BUILT_IN
from metrics.context import MetricContext
from metrics.table import METRICS

PRESET_COLUMNS = (
    "name",
    "what it is and whose weights",
    "published number of the full run",
    "device memory, reckoned",
    "command",
)


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


def describe_presets() -> list[tuple[str, str, str, str, str]]:
    """A row of :data:`PRESET_COLUMNS` for each bundled preset. Nothing is downloaded."""
    rows = []
    for name in preset_names():
        spec = load_spec(name)
        memory = f"{spec.memory_gib:g} GiB" if spec.memory_gib else ""
        anchor = spec.anchor.text if spec.anchor else ""
        rows.append((name, f"{spec.title}; {spec.pipeline}", anchor, memory, f"ilf-bench run {name}"))
    return rows
