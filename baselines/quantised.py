"""INT8 and FP8 matrix products in the blocks, through torchao (an optional package: the extra ``lowbit``)."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import nn

from harness.cost.plan import PRECISION, Plan
from harness.errors import NotMeasured
from harness.sampling.pipeline import Pipeline

FP8_CAPABILITY = (8, 9)  # Ada; Hopper is 9.0


@dataclass(frozen=True)
class Int8:
    """INT8 weights, one scale a row; ``inputs`` are ``int8`` (dynamic, one scale a token) or ``float`` (weights only)."""

    inputs: Literal["int8", "float"] = "int8"
    innermost: ClassVar[bool] = True

    @property
    def label(self) -> str:
        """``int8``, or ``int8(weights only)``."""
        return "int8" if self.inputs == "int8" else "int8(weights only)"

    def plan(self, plan: Plan) -> Plan:
        """As many block evaluations, each of them cheaper or not: only time tells."""
        _torchao()
        return plan.choosing(PRECISION)

    @contextmanager
    def attach(self, pipeline: Pipeline) -> Iterator[None]:
        """Quantise inside the context; outside it the weights are the very tensors that they were."""
        name = "Int8DynamicActivationInt8WeightConfig" if self.inputs == "int8" else "Int8WeightOnlyConfig"
        with quantised(pipeline, getattr(_torchao(), name)()):
            yield


@dataclass(frozen=True)
class Fp8:
    """FP8 (e4m3) weights and inputs, the inputs scaled as they come. Needs a GPU of compute capability 8.9 or newer."""

    innermost: ClassVar[bool] = True

    @property
    def label(self) -> str:
        """``fp8``."""
        return "fp8"

    def plan(self, plan: Plan) -> Plan:
        """As many block evaluations, each of them cheaper or not: only time tells."""
        _torchao()
        return plan.choosing(PRECISION)

    @contextmanager
    def attach(self, pipeline: Pipeline) -> Iterator[None]:
        """Quantise inside the context. Raises :class:`NotMeasured` on a device that cannot multiply FP8."""
        capability = torch.cuda.get_device_capability(pipeline.device) if pipeline.device.startswith("cuda") else None
        if capability is None or capability < FP8_CAPABILITY:
            found = pipeline.device if capability is None else f"compute capability {capability[0]}.{capability[1]}"
            raise NotMeasured(expected="a GPU of compute capability 8.9 or newer", got=found, remedy="leave fp8 out, or use int8")
        with quantised(pipeline, _torchao().Float8DynamicActivationFloat8WeightConfig()):
            yield


def _torchao() -> Any:
    try:
        return importlib.import_module("torchao.quantization")
    except ImportError as error:
        raise NotMeasured(expected="the package torchao", got=str(error), remedy="pip install 'ilf-bench[lowbit]'") from error


@contextmanager
def quantised(pipeline: Pipeline, config: Any) -> Iterator[None]:
    """Replace the weights of all linear layers of the blocks by quantised ones inside the context."""
    layers = [layer for block in pipeline.blocks for layer in block.modules() if isinstance(layer, nn.Linear)]
    weights, attributes = [layer.weight for layer in layers], [set(vars(layer)) for layer in layers]
    try:
        for block in pipeline.blocks:
            _torchao().quantize_(block, config)
        yield
    finally:
        for layer, weight, names in zip(layers, weights, attributes, strict=True):
            layer.weight = weight
            for added in set(vars(layer)) - names:  # torchao leaves a description
                delattr(layer, added)
