"""Methods and a metric that go wrong, each in its own way: a run made with them has a record of every kind."""

from contextlib import contextmanager
from dataclasses import dataclass

from ilf_bench import BaseMetric


@dataclass(frozen=True)
class Broken:
    """Fails as soon as it samples."""

    label = "broken"

    def plan(self, plan):
        """Nothing is changed."""
        return plan

    @contextmanager
    def attach(self, pipeline):
        """Never comes to the block."""
        raise RuntimeError("no such block")
        yield


@dataclass(frozen=True)
class Hungry:
    """The full run, that runs out of memory at more than one image."""

    label = "hungry"

    def plan(self, plan):
        """Nothing is changed."""
        return plan

    @contextmanager
    def attach(self, pipeline):
        """Two rows, the branches of one image, are all that it can bear."""

        def enough(module, positional, named):
            if len(named.get("hidden_states", positional[0] if positional else ())) > 2:
                raise MemoryError("out of memory")

        hook = pipeline.transformer.register_forward_pre_hook(enough, with_kwargs=True)
        try:
            yield
        finally:
            hook.remove()


class Unmeasured(BaseMetric):
    """Fails on every image."""

    name, title, unit, direction, paired = "unmeasured", "Unmeasured", "points", "lower", True

    def __init__(self, context):
        """``context`` is not looked at."""

    def details(self):
        """What fixes its numbers."""
        return {"definition": "none"}

    def measure(self, batch):
        """Never returns."""
        raise RuntimeError("no such network")


METHODS = {"broken": Broken, "hungry": Hungry}
METRICS = {"unmeasured": Unmeasured}
