"""Limited-interval guidance (Kynkäänniemi et al. 2024, arXiv 2404.07724): guide only in the middle of the run."""

from contextlib import contextmanager
from dataclasses import dataclass, replace

from ilf_bench import UsageError, conditional_only


@dataclass(frozen=True)
class LimitedGuidance:
    """Outside the steps from ``first`` to ``last`` (0..1 of the run) only the conditional branch runs, unguided."""

    first: float = 0.2
    last: float = 0.8

    def __post_init__(self):
        if not 0 <= self.first <= self.last <= 1:
            raise UsageError(expected="0 <= first <= last <= 1", got=f"{self.first} and {self.last}", remedy="swap them?")

    @property
    def label(self):
        """For example ``guidance(0.2-0.8)``."""
        return f"guidance({self.first:g}-{self.last:g})"

    def guided(self, steps):
        """The numbers of the guided steps, from 0."""
        return range(round(self.first * steps), round(self.last * steps))

    def plan(self, plan):
        """One branch instead of two outside the interval."""
        inside = self.guided(len(plan.steps))
        steps = tuple(cost if i in inside else replace(cost, branches=1) for i, cost in enumerate(plan.steps))
        return replace(plan, steps=steps)

    @contextmanager
    def attach(self, pipeline):
        """Outside the interval the transformer is called for the conditional branch alone."""
        inside = self.guided(pipeline.steps)
        with conditional_only(pipeline, lambda step: step not in inside):
            yield


METHODS = {"limited-guidance": LimitedGuidance}
