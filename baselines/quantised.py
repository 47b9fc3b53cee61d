"""INT8 and FP8 matrix products in the blocks, through torchao (an optional package: the extra ``lowbit``)."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from torch import nn

from harness.cost.plan import Plan
from harness.errors import NotMeasured

if TYPE_CHECKING:
    from harness.sampling.pipeline import Pipeline

FP8_CAPABILITY = (8, 9)  # Ada; Hopper is 9.0
TILE = (128, 128)  # torchao takes a weight of this shape for one that is scaled in blocks, and then wants its inputs so
OUTSIDE = {"set_inductor_config": False}  # else torchao changes inductor's settings for the rest of the process


@dataclass(frozen=True)
class Int8:
    """INT8 weights, one scale a row; ``inputs`` are ``int8`` (dynamic, one scale a token) or ``float`` (weights only)."""

    inputs: Literal["int8", "float"] = "int8"
    innermost: ClassVar[int] = 1

    @property
    def label(self) -> str:
        """``int8``, or ``int8(weights only)``."""
        return "int8" if self.inputs == "int8" else "int8(weights only)"

    def plan(self, plan: Plan) -> Plan:
        """As many block evaluations, each of them cheaper or not: only time tells."""
        _torchao()
        return plan.choosing("the precision of the weights")

    @contextmanager
    def attach(self, pipeline: Pipeline) -> Iterator[None]:
        """Quantise inside the context; outside it the weights are the very tensors that they were.

        Raises :class:`NotMeasured` for INT8 inputs on a GPU whose blocks are not compiled: torchao then prints the input of
        every layer to find out whether it is traced, which takes seconds a call.
        """
        eager = pipeline.blocks_run == "eager" and not pipeline.compile
        if self.inputs == "int8" and pipeline.device.startswith("cuda") and eager:
            raise NotMeasured(expected="compiled blocks for int8 on a GPU", got="eager ones", remedy="int8+compile, or --compile")
        name = "Int8DynamicActivationInt8WeightConfig" if self.inputs == "int8" else "Int8WeightOnlyConfig"
        with quantised(pipeline, getattr(_torchao(), name)(**OUTSIDE)):
            yield


@dataclass(frozen=True)
class Fp8:
    """FP8 (e4m3) weights and inputs, the inputs scaled as they come. Needs 16-bit weights and compute capability 8.9 or newer."""

    innermost: ClassVar[int] = 1

    @property
    def label(self) -> str:
        """``fp8``."""
        return "fp8"

    def plan(self, plan: Plan) -> Plan:
        """As many block evaluations, each of them cheaper or not: only time tells."""
        _torchao()
        return plan.choosing("the precision of the weights")

    @contextmanager
    def attach(self, pipeline: Pipeline) -> Iterator[None]:
        """Quantise inside the context.

        Raises :class:`NotMeasured` on a device that cannot multiply FP8, and on float32 weights: their biases are refused.
        """
        capability = torch.cuda.get_device_capability(pipeline.device) if pipeline.device.startswith("cuda") else None
        if capability is None or capability < FP8_CAPABILITY:
            found = pipeline.device if capability is None else f"compute capability {capability[0]}.{capability[1]}"
            raise NotMeasured(expected="a GPU of compute capability 8.9 or newer", got=found, remedy="leave fp8 out, or use int8")
        if pipeline.dtype == "float32":
            raise NotMeasured(expected="16-bit weights for fp8", got="float32", remedy="--dtype bfloat16")
        config = _torchao().Float8DynamicActivationFloat8WeightConfig(**OUTSIDE)
        with quantised(pipeline, config, lambda layer: tuple(layer.weight.shape) != TILE):
            yield


def _torchao() -> Any:
    try:
        return importlib.import_module("torchao.quantization")
    except ImportError as error:
        raise NotMeasured(expected="the package torchao", got=str(error), remedy="pip install 'ilf-bench[lowbit]'") from error


@contextmanager
def quantised(pipeline: Pipeline, config: Any, takes: Callable[[nn.Linear], bool] = lambda layer: True) -> Iterator[None]:
    """Replace the weights of the linear layers of the blocks that ``takes`` takes by quantised ones inside the context.

    The weights that they replace wait on the host, so that the device's memory is that of the quantised model.
    """
    layers = [m for block in pipeline.blocks for m in block.modules() if isinstance(m, nn.Linear) and takes(m)]
    weights, attributes = [layer.weight for layer in layers], [set(vars(layer)) for layer in layers]
    try:
        for layer, weight in zip(layers, weights, strict=True):
            _torchao().quantize_(layer, config, filter_fn=lambda module, name: isinstance(module, nn.Linear))
            weight.data = weight.data.cpu()
        yield
    finally:
        for layer, weight, names in zip(layers, weights, attributes, strict=True):
            layer.weight = weight
            weight.data = weight.data.to(pipeline.device)
            for added in set(vars(layer)) - names:  # torchao leaves a description
                delattr(layer, added)
