"""Counting block evaluations where they happen."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from harness.models.families.base import Conditioning, State
from harness.sampling.patching import patched
from harness.sampling.sites import Run, Site


class BlockCounter:
    """Rows of hidden states that went through any counted block; divide by images for evaluations per image.

    A row counts what the block is worth in mean blocks of the model, less the share of each part that was not called.
    """

    def __init__(self) -> None:
        self.rows = 0.0

    @contextmanager
    def counting(self, sites: Sequence[Site]) -> Iterator[None]:
        """Count calls of the blocks at ``sites`` inside the context."""
        with ExitStack() as stack:
            for site in sites:
                ran: set[str] = set()
                for part, module in site.parts():
                    stack.enter_context(patched(module, "forward", _noted(module.forward, part.name, ran)))
                stack.enter_context(site.changed(self._counted(site, ran)))
            yield

    def _counted(self, site: Site, ran: set[str]) -> Callable[[Run, State, Conditioning], State]:
        def call(run: Run, state: State, conditioning: Conditioning) -> State:
            ran.clear()
            output = run(state, conditioning)
            skipped = sum(share for name, share in site.shares.items() if name not in ran)
            self.rows += (site.weight - skipped) * len(state[0])
            return output

        return call


def _noted(forward: Callable[..., Any], name: str, ran: set[str]) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        ran.add(name)
        return forward(*args, **kwargs)

    return call
