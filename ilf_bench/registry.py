"""Which methods and metrics there are: the built-in tables, those that other packages add, and the user's own files."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any, Literal

from baselines.table import BASELINES
from harness.config.description import Plugin
from harness.config.methods import MethodTable, parse_method
from harness.config.spec import ExperimentSpec, is_random
from harness.contracts import Method, Metric
from harness.cost.plan import Plan
from harness.errors import HarnessError, UsageError, did_you_mean
from harness.paths import locate
from harness.results import Failure, method_parts
from harness.sampling.precision import exact_float32, resolve_device
from ilf.method import ILF_METHODS
from ilf.untrained import UNTRAINED_METHODS
from ilf_bench.plugins import LoadedPlugin, check_method, load_plugin, qualified_names
from metrics.context import MetricContext
from metrics.table import METRICS, MetricTable

Kind = Literal["methods", "metrics"]
Group = Literal["methods", "metrics", "families"]
BUILT_IN: MethodTable = {**BASELINES, **ILF_METHODS, **UNTRAINED_METHODS}
OURS: Mapping[Kind, Mapping[str, Callable[..., Any]]] = {"methods": BUILT_IN, "metrics": METRICS}
GROUPS: Mapping[Group, str] = {
    "methods": "ilf_bench.methods",
    "metrics": "ilf_bench.metrics",
    "families": "ilf_bench.families",
}


@dataclass(frozen=True)
class Added:
    """A name that an installed package adds by an entry point; where it cannot, ``fault`` says why and ``value`` is None."""

    name: str
    package: str
    target: str
    value: Any = None
    fault: str = ""


@dataclass(frozen=True)
class Registry:
    """Methods and metrics by name. ``plugins``: where those that are not ours come from, a user's file or a package.

    ``missing``: names that are not there although something brings them, and why: an entry point that fails, or two files.
    """

    methods: MethodTable
    metrics: MetricTable
    plugins: Mapping[str, Plugin] = field(default_factory=dict)
    missing: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, files: Sequence[Path] = ()) -> Registry:
        """Everything: ours, the packages', and that of ``files``. Raises :class:`UsageError` on a file that is no plugin."""
        plugins = list({loaded.path: loaded for loaded in map(load_plugin, files)}.values())
        sources: dict[str, Plugin] = {}
        missing: dict[str, str] = {}
        tables = {kind: _joined(kind, plugins, sources, missing) for kind in OURS}
        return cls(tables["methods"], tables["metrics"], sources, missing)

    def with_commands(self, commands: MetricTable) -> Registry:
        """Scorer commands added; a plugin's metric of the same name goes before one."""
        return replace(self, metrics={**commands, **self.metrics})

    def method(self, text: str) -> Method:
        """Build a method from its text. Raises :class:`UsageError` on an unknown name or option, or a label that is none."""
        for part in method_parts(text):
            self._check_present(part.split(":")[0])
        method = self._built(text)
        check_label(method, text)
        return method

    def _built(self, text: str) -> Method:
        """What a user's own class raises when it is made names the method; ours name themselves."""
        if not self._is_own(text):
            return parse_method(text, self.methods)
        try:
            return parse_method(text, self.methods)
        except HarnessError as error:
            expected = error.expected if text.split(":")[0] in error.expected else f"{text}: {error.expected}"
            raise UsageError(expected=expected, got=error.got, remedy=error.remedy) from error
        except Exception as error:  # the user's code
            raise UsageError(expected=f"{text} to be made", got=repr(error), remedy="fix its `__post_init__`") from error

    def _is_own(self, text: str) -> bool:
        return any(part.split(":")[0] in self.plugins for part in method_parts(text))

    def check_plan(self, text: str, method: Method, plan: Plan) -> None:
        """Raise :class:`UsageError` where the user's own method cannot say what it costs: its code may do anything."""
        if not self._is_own(text):
            return
        try:
            found: Any = method.plan(plan)
        except HarnessError:  # said, where that row is predicted
            return
        except Exception as error:
            raise UsageError(expected=f"a plan of {text}", got=repr(error), remedy="fix its method `plan`") from error
        if not isinstance(found, Plan):
            raise UsageError(expected=f"a plan of {text}", got=repr(found), remedy="return what `plan` was given, changed")

    def check_metrics(self, names: Sequence[str]) -> None:
        """Raise :class:`UsageError` on an unknown name."""
        for name in names:
            self._check_present(name)
            if name not in self.metrics:
                remedy = f"{did_you_mean(name, self.metrics)}see ilf-bench list metrics"
                raise UsageError(expected=f"metrics out of {', '.join(self.metrics)}", got=repr(name), remedy=remedy)

    def _check_present(self, name: str) -> None:
        if name in self.missing:
            raise UsageError(expected=f"{name} to be there", got=self.missing[name], remedy="see ilf-bench doctor")


def _joined(
    kind: Kind, plugins: Sequence[LoadedPlugin], sources: dict[str, Plugin], missing: dict[str, str]
) -> dict[str, Callable[..., Any]]:
    """The table of one kind. What a package adds may be replaced by the user's own file, what is built in may not."""
    table = dict(OURS[kind])
    for added in added_by_packages(kind):
        if not added.fault:
            table[added.name], sources[added.name] = added.value, Plugin(added.package, "")
        elif added.name not in table:
            missing[added.name] = f"{added.target} of {added.package}: {added.fault}"
    ends = qualified_names([plugin.path for plugin in plugins])
    for name in {name: None for plugin in plugins for name in plugin.tables[kind]}:
        owners = [plugin for plugin in plugins if name in plugin.tables[kind]]
        if name in OURS[kind]:
            raise UsageError(expected=f"another name than {name} in {owners[0].path}", got="a built-in one", remedy="rename it")
        missing.pop(name, None)
        names = [name] if len(owners) == 1 else [f"{ends[owner.path]}/{name}" for owner in owners]
        if len(owners) > 1:
            table.pop(name, None)
            missing[name] = f"{len(owners)} plugins that have it: write {' or '.join(names)}"
        for own, owner in zip(names, owners, strict=True):
            table[own] = owner.tables[kind][name]
            sources[own] = Plugin(owner.path.name, owner.digest, owner.sources, owner.path.parent)
    return table


def added_by_packages(kind: Group) -> list[Added]:
    """What the entry points of installed packages add. One that fails is named, and stops no other."""
    found: list[Added] = []
    taken = {} if kind == "families" else dict.fromkeys(OURS[kind], "ilf-bench")
    for entry in sorted(entry_points(group=GROUPS[kind]), key=lambda entry: (_package(entry), entry.name)):
        found.append(_load(kind, entry, taken))
        if not found[-1].fault:
            taken[entry.name] = found[-1].package
    return found


def _load(kind: Group, entry: EntryPoint, taken: Mapping[str, str]) -> Added:
    package = _package(entry)
    if entry.name in taken:
        return Added(entry.name, package, entry.value, fault=f"the name {entry.name} is that of one of {taken[entry.name]}")
    try:
        value = entry.load()
        if kind == "methods":
            check_method(entry.name, value, package)
        elif kind == "metrics" and not callable(value):
            raise UsageError(expected="what builds a metric from a MetricContext", got=repr(value), remedy=f"fix {entry.value}")
    except Exception as error:  # another package's code: it may raise anything
        return Added(entry.name, package, entry.value, fault=" ".join(f"{type(error).__name__}: {error}".split()))
    return Added(entry.name, package, entry.value, value)


def _package(entry: EntryPoint) -> str:
    return "?" if entry.dist is None else f"{entry.dist.name} {entry.dist.version}"


def check_label(method: Method, text: str) -> None:
    """Raise :class:`UsageError` where a method's label is no text of one line."""
    try:
        label: Any = method.label
    except Exception as error:  # the user's code
        raise UsageError(expected=f"a label of {text}", got=repr(error), remedy="fix its property `label`") from error
    if not isinstance(label, str) or not label.strip() or not label.isprintable():
        raise UsageError(expected=f"a label of {text}, one line of text", got=repr(label), remedy="fix its property `label`")


def build_metrics(spec: ExperimentSpec, own: MetricTable | None = None) -> dict[str, Metric | Failure]:
    """The spec's metrics, the built-in ones and ``own``; one that cannot be built is a failure with a reason.

    With random weights all are: no scorer is asked about such images.
    """
    if is_random(spec.pipeline):
        return {name: Failure("", name, "NOT-MEASURED: random weights") for name in spec.metrics}
    exact_float32()
    context = MetricContext(
        locate(spec.scorers),
        spec.task,
        resolve_device(spec.device),
        None if spec.reference is None else locate(spec.reference),
        spec.reference_steps,
    )
    _ = context.networks  # a scorers' file that cannot be read is the command's fault, not a metric's
    table = {**METRICS, **(own or {})}
    return {name: _build(name, table, context) for name in spec.metrics}


def _build(name: str, table: MetricTable, context: MetricContext) -> Metric | Failure:
    try:
        return table[name](context)
    except HarnessError as error:
        return Failure("", name, str(error))
    except Exception as error:
        if name in METRICS:
            raise
        return Failure("", name, f"{type(error).__name__}: {error}")  # the user's code
