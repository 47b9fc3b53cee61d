"""A method with something wrong with it, under its own label: a gate is to see a regression, not another method."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass

from harness.contracts import Method
from harness.cost.plan import Plan
from harness.sampling.pipeline import Pipeline


@dataclass(frozen=True)
class Disguised:
    """``inner`` with a ``change`` made to the pipeline around it; label and plan stay."""

    inner: Method
    change: Callable[[Pipeline], AbstractContextManager[None]]

    @property
    def label(self) -> str:
        """That of the method."""
        return self.inner.label

    def plan(self, plan: Plan) -> Plan:
        """That of the method."""
        return self.inner.plan(plan)

    @contextmanager
    def attach(self, pipeline: Pipeline) -> Iterator[None]:
        """The method, then the change."""
        with self.inner.attach(pipeline), self.change(pipeline):
            yield
