"""Methods by text: ``name``, ``name:value``, ``name:key=value:key=value``, and compositions with ``+``."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter, ValidationError

from harness.contracts import Capturing, Method, Trained, takes_one_image, why_unscored
from harness.cost.plan import Backbone, Plan
from harness.errors import UsageError, did_you_mean
from harness.results import UpfrontCost, method_parts

if TYPE_CHECKING:
    from harness.sampling.pipeline import Pipeline

MethodTable = Mapping[str, Callable[..., Method]]


@dataclass(frozen=True)
class Composition:
    """Several methods at once, attached from left to right; those that are ``innermost`` (compilation 2, precision 1) first.

    So the others wrap what these have made of the blocks, wherever they stand in the text.
    """

    parts: tuple[Method, ...]

    @property
    def label(self) -> str:
        """The parts' labels joined by ``+``."""
        return " + ".join(part.label for part in self.parts)

    def plan(self, plan: Plan) -> Plan:
        """Each part's plan applied in order."""
        for part in self.parts:
            plan = part.plan(plan)
        return plan

    @property
    def why_unscored(self) -> str:
        """The first part's reason that has one."""
        return next(filter(None, map(why_unscored, self.parts)), "")

    @property
    def captures(self) -> bool:
        """Whether one of the parts does."""
        return any(isinstance(part, Capturing) and part.captures for part in self.parts)

    @property
    def takes_one_image(self) -> bool:
        """Whether one of the parts does."""
        return any(map(takes_one_image, self.parts))

    def upfront_cost(self, backbone: Backbone) -> UpfrontCost:
        """The sum over the parts that were trained."""
        return sum((part.upfront_cost(backbone) for part in self.parts if isinstance(part, Trained)), UpfrontCost(0.0, 0))

    @contextmanager
    def attach(self, pipeline: Pipeline) -> Iterator[None]:
        """Attach all; detach in reverse order."""
        with ExitStack() as stack:
            for part in sorted(self.parts, key=lambda part: -getattr(part, "innermost", 0)):
                stack.enter_context(part.attach(pipeline))
            yield


@dataclass(frozen=True)
class StandIn:
    """A method whose trained weights are not available, timed and counted through ``method``, which has the same shape."""

    label: str
    method: Method
    why_unscored: str

    def plan(self, plan: Plan) -> Plan:
        """The cost of what stands in."""
        return self.method.plan(plan)

    def upfront_cost(self, backbone: Backbone) -> UpfrontCost:
        """What stands in says how many parameters it adds."""
        return self.method.upfront_cost(backbone) if isinstance(self.method, Trained) else UpfrontCost(0.0, 0)

    @property
    def captures(self) -> bool:
        """As what stands in."""
        return isinstance(self.method, Capturing) and self.method.captures

    def attach(self, pipeline: Pipeline) -> AbstractContextManager[None]:
        """What stands in."""
        return self.method.attach(pipeline)


def parse_method(text: str, table: MethodTable) -> Method:
    """Build a method from its text. Raises :class:`UsageError` on an unknown name or option.

    Options follow the name, by name or in their order; ``+`` composes several methods:

    >>> from dataclasses import dataclass
    >>> @dataclass(frozen=True)
    ... class Cache:
    ...     interval: int = 2
    >>> parse_method("cache:3", {"cache": Cache})
    Cache(interval=3)
    """
    parts = tuple(_parse_one(part, table) for part in method_parts(text))
    return parts[0] if len(parts) == 1 else Composition(parts)


def _parse_one(text: str, table: MethodTable) -> Method:
    name, *options = text.split(":")
    if name not in table:
        remedy = f"{did_you_mean(name, table)}see ilf-bench list methods"
        raise UsageError(expected=f"a method out of {', '.join(table)}", got=repr(name), remedy=remedy)
    kind: Any = table[name]
    names = [field.name for field in fields(kind)]
    values: dict[str, str] = {}
    for position, option in enumerate(options):
        key, has_key, value = option.rpartition("=")
        key = key if has_key else (names[position] if position < len(names) else "")
        if key not in names:
            known = ", ".join(names) or "no options"
            remedy = did_you_mean(key, names) + (f"for example {name}:{names[0]}=..." if names else name)
            raise UsageError(expected=f"an option of {name}: {known}", got=repr(option), remedy=remedy)
        if key in values:
            raise UsageError(expected=f"{name}: {key} once", got=repr(text), remedy="leave one of them out")
        values[key] = value
    try:
        return TypeAdapter(kind).validate_python(values)  # type: ignore[no-any-return]
    except ValidationError as error:
        first = error.errors()[0]
        raise UsageError(
            expected=f"{name}: {'.'.join(map(str, first['loc']))} {first['msg']}",
            got=repr(first.get("input")),
            remedy="edit the method",
        ) from error
