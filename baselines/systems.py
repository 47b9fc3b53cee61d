"""torch.compile and CUDA graphs as methods, so that every row can be had with them: ``ilf+fp8+compile``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from types import MethodType
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch.utils._pytree import tree_flatten, tree_unflatten

from harness.cost.plan import Plan
from harness.errors import NotMeasured
from harness.sampling.compiling import compiled_forward
from harness.sampling.patching import patched

if TYPE_CHECKING:
    from harness.sampling.pipeline import Pipeline

Forward = Callable[..., Any]
WARMUPS = 2  # calls of a block before it is captured: libraries choose their kernels and set up their workspaces in them


@contextmanager
def below_all(pipeline: Pipeline, change: Callable[[Forward], Forward]) -> Iterator[None]:
    """Put ``change(forward)`` under whatever wraps the blocks now or later: counters, caches, the inner loop."""
    with ExitStack() as stack:
        for block in pipeline.blocks:
            stack.enter_context(patched(block, "forward", change(MethodType(type(block).forward, block))))
        if pipeline.counter:
            stack.enter_context(pipeline.counter.counting(pipeline.sites))
        yield


@dataclass(frozen=True)
class Compile:
    """Every block through torch.compile, whole; the option `--compile` does it for all rows of a run. The seconds of compilation
    fall into the first call, which is recorded apart.
    """

    innermost: ClassVar[int] = 2

    @property
    def label(self) -> str:
        """``compile``."""
        return "compile"

    def plan(self, plan: Plan) -> Plan:
        """The same cost."""
        return plan.choosing("compilation")

    @contextmanager
    def attach(self, pipeline: Pipeline) -> Iterator[None]:
        """Compile at the first call inside the context; torch keeps what it compiled for the next one."""
        with below_all(pipeline, compiled_forward), pipeline.running("compiled"):
            yield


@dataclass(frozen=True)
class CudaGraphs:
    """Every block as CUDA graphs, one for each kind of its input: the same kernels without the time to launch them.

    They are captured in the first call after the method is attached, which is not timed.
    """

    innermost: ClassVar[int] = 2
    captures: ClassVar[bool] = True

    @property
    def label(self) -> str:
        """``cuda-graphs``."""
        return "cuda-graphs"

    def plan(self, plan: Plan) -> Plan:
        """The same cost."""
        return plan.choosing("compilation")

    @contextmanager
    def attach(self, pipeline: Pipeline) -> Iterator[None]:
        """Capture at the first calls inside the context.

        Raises :class:`NotMeasured` on a device without CUDA, and on float32 weights under autocast: eager blocks cast them once
        a call, and a graph would at every replay.
        """
        if not pipeline.device.startswith("cuda"):
            raise NotMeasured(expected="a CUDA device", got=pipeline.device, remedy="leave cuda-graphs out, or --device cuda")
        if pipeline.dtype == "float32" and pipeline.precision != "fp32":
            got = f"float32 weights computed with in {pipeline.precision}"
            raise NotMeasured(expected="16-bit weights for cuda-graphs", got=got, remedy="--dtype bfloat16, or --precision fp32")
        if pipeline.residency.offload == "model":
            raise NotMeasured(
                expected="weights that stay where a graph reads them", got="--offload model", remedy="--offload none, or text"
            )
        memory = Memory(torch.cuda.graph_pool_handle())
        graphs = below_all(pipeline, lambda forward: graphed(forward, memory))
        with torch.cuda.device(pipeline.device), graphs, pipeline.running("captured"):
            yield


class Memory:
    """What all graphs of a pipeline share: a pool for what is computed on the way, and one input and output of each kind."""

    def __init__(self, pool: Any) -> None:
        self.pool = pool
        self.held: dict[Any, torch.Tensor] = {}

    def of(self, place: Any, tensor: torch.Tensor) -> torch.Tensor:
        """The one tensor that holds what lies at ``place`` of a call and is like ``tensor``."""
        key = (place, tensor.shape, tensor.stride(), tensor.dtype)
        if key not in self.held:
            self.held[key] = tensor.clone()
        return self.held[key]


def graphed(forward: Forward, memory: Memory) -> Forward:
    """A block's forward, captured for each kind of input and replayed for the next ones. Weights are read where they lie."""
    captured: dict[Any, _Graph] = {}

    def call(*args: Any, **kwargs: Any) -> Any:
        values, form = tree_flatten((args, kwargs))
        kind = (str(form), *(_kind(value) for value in values))
        if kind not in captured:
            captured[kind] = _Graph(forward, values, form, memory)
        return captured[kind].replay(values)

    return call


def _kind(value: Any) -> Any:
    """What of an input a graph cannot take otherwise than it was captured with."""
    return (value.shape, value.stride(), value.dtype) if isinstance(value, torch.Tensor) else value


class _Graph:
    """One captured call. Its input and output are overwritten by those of the next graph that is replayed."""

    def __init__(self, forward: Forward, values: list[Any], form: Any, memory: Memory) -> None:
        self.inputs = [memory.of(i, value) if isinstance(value, torch.Tensor) else value for i, value in enumerate(values)]
        args, kwargs = tree_unflatten(self.inputs, form)

        def run() -> list[Any]:
            leaves, self.form = tree_flatten(forward(*args, **kwargs))
            return leaves

        made = enumerate(warmed_up(run))
        self.outputs = [memory.of(("output", i), leaf) if isinstance(leaf, torch.Tensor) else leaf for i, leaf in made]
        self.rerun = captured(lambda: _copy(run(), self.outputs), memory.pool)

    def replay(self, values: list[Any]) -> Any:
        """The output for other inputs of this kind."""
        _copy(values, self.inputs)
        self.rerun()
        return tree_unflatten([leaf.clone() if isinstance(leaf, torch.Tensor) else leaf for leaf in self.outputs], self.form)


def _copy(values: list[Any], held: list[Any]) -> None:
    """Tensors into those that are held for them; other values are the same at every call of one kind."""
    for value, place in zip(values, held, strict=True):
        if isinstance(value, torch.Tensor):
            place.copy_(value)


def warmed_up(run: Callable[[], list[Any]]) -> list[Any]:
    """What ``run`` returns, after some calls on a stream beside the present one, as a capture needs them before it."""
    aside, here = torch.cuda.Stream(), torch.cuda.current_stream()  # type: ignore[no-untyped-call]
    aside.wait_stream(here)
    with torch.cuda.stream(aside):
        for _ in range(WARMUPS):
            output = run()
    here.wait_stream(aside)
    return output


def captured(run: Callable[[], None], pool: Any) -> Callable[[], None]:
    """``run`` as a CUDA graph: a function that launches the same kernels again."""
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, pool=pool):
        run()
    return lambda: graph.replay()
