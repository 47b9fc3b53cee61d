"""torch.compile of transformer blocks, below everything that a method changes.

Each block's own forward is compiled, and methods (caches, the inner loop, counters) wrap the compiled one, so that compilation
composes with all of them, needs no new compilation when a method is attached again, and its graphs stay whole:
``fullgraph`` makes a graph break an error. Blocks of one kind share their compilations, one for each
shape and stride of the input.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import nn

from harness.errors import NotMeasured
from harness.sampling.patching import patched

BACKEND = "inductor"
SHAPES = 64  # input shapes and block kinds that may be compiled before torch gives up with an error; its own limit is 8


def compiled_forward(forward: Callable[..., Any]) -> Any:
    """A block's forward as a compiled function: a static shape each, the whole block in one graph."""
    import torch._dynamo

    torch._dynamo.config.recompile_limit = max(SHAPES, torch._dynamo.config.recompile_limit)
    return torch.compile(forward, fullgraph=True, dynamic=False, backend=BACKEND)


@contextmanager
def compiled(blocks: Iterable[nn.Module]) -> Iterator[None]:
    """Run ``blocks`` compiled inside the context."""
    with ExitStack() as stack:
        for block in blocks:
            stack.enter_context(patched(block, "forward", compiled_forward(block.forward)))
        yield


def gave_up(error: Exception) -> NotMeasured | None:
    """What to say where torch would not compile one more variant of a block, else None.

    What it has compiled is then forgotten: blocks share it, so the next method would find no room, not even the full run.
    """
    if type(error).__name__ != "FailOnRecompileLimitHit":
        return None
    torch._dynamo.reset()
    return NotMeasured(
        expected=f"at most {SHAPES} variants of a block to compile",
        got="a method that changes the blocks, or the shape of their input, at every step",
        remedy="run it without compilation",
    )


def compile_seconds() -> float:
    """Seconds that this process has spent compiling so far."""
    if "torch._dynamo.utils" not in sys.modules:  # its import takes seconds, and nothing has been compiled without it
        return 0.0
    return float(torch._dynamo.utils.calculate_time_spent().get("total_wall_time", 0.0))
