"""torch.compile and CUDA graphs as methods, so that every row can be had with them: ``ilf+fp8+compile``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from types import MethodType
from typing import Any, ClassVar

import torch

from harness.cost.plan import COMPILATION, Plan
from harness.errors import NotMeasured
from harness.sampling.compiling import compiled_forward
from harness.sampling.patching import patched
from harness.sampling.pipeline import Pipeline

Forward = Callable[..., torch.Tensor]


@contextmanager
def below_all(pipeline: Pipeline, change: Callable[[Forward], Forward]) -> Iterator[None]:
    """Put ``change(forward)`` under whatever wraps the blocks now or later: counters, caches, the inner loop."""
    with ExitStack() as stack:
        for block in pipeline.blocks:
            stack.enter_context(patched(block, "forward", change(MethodType(type(block).forward, block))))
        if pipeline.counter:
            stack.enter_context(pipeline.counter.counting(*pipeline.blocks))
        yield


@dataclass(frozen=True)
class Compile:
    """Every block through torch.compile, whole; the option `--compile` does it for all rows of a run. The seconds of compilation
    fall into the first call, which is recorded apart.

    A method that re-uses parts of blocks is compiled once for each pattern of parts, which takes minutes.
    """

    innermost: ClassVar[bool] = True

    @property
    def label(self) -> str:
        """``compile``."""
        return "compile"

    def plan(self, plan: Plan) -> Plan:
        """The same cost."""
        return plan.choosing(COMPILATION)

    @contextmanager
    def attach(self, pipeline: Pipeline) -> Iterator[None]:
        """Compile at the first call inside the context; torch keeps what it compiled for the next one."""
        with below_all(pipeline, compiled_forward):
            yield


@dataclass(frozen=True)
class CudaGraphs:
    """Every block as a CUDA graph, captured by torch's ``cudagraphs`` backend: the same kernels without launch overhead."""

    innermost: ClassVar[bool] = True

    @property
    def label(self) -> str:
        """``cuda-graphs``."""
        return "cuda-graphs"

    def plan(self, plan: Plan) -> Plan:
        """The same cost."""
        return plan.choosing(COMPILATION)

    @contextmanager
    def attach(self, pipeline: Pipeline) -> Iterator[None]:
        """Capture at the first calls inside the context. Raises :class:`NotMeasured` on a device without CUDA."""
        if not pipeline.device.startswith("cuda"):
            raise NotMeasured(expected="a CUDA device", got=pipeline.device, remedy="leave cuda-graphs out, or --device cuda")
        with below_all(pipeline, _graphed):
            yield


def _graphed(forward: Forward) -> Forward:
    graphed = torch.compile(forward, fullgraph=True, dynamic=False, backend="cudagraphs")

    def call(*args: Any, **kwargs: Any) -> torch.Tensor:
        torch.compiler.cudagraph_mark_step_begin()  # type: ignore[no-untyped-call]
        return graphed(*args, **kwargs).clone()  # the graph's own output is overwritten when it is replayed

    return call
