"""Low-rank adapters (LoRA, Hu et al. 2021, arXiv 2106.09685) added to the weights they were trained for: W + scale (a / r) B A.

A file of the forms that diffusers and peft write (``...lora_A.weight``, ``...lora_B.weight``) or with ``lora_down``, ``lora_up``
and ``alpha``; module names are the transformer's own. Everything else in a file is refused, never left out in silence.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import nn

from harness.errors import ArtifactError
from harness.models.reading import check_header, reading

PREFIXES = ("base_model.model.", "transformer.", "diffusion_model.")
ENDS = {
    ".lora_A.weight": "down",
    ".lora_down.weight": "down",
    ".lora_A.default.weight": "down",
    ".lora_B.weight": "up",
    ".lora_up.weight": "up",
    ".lora_B.default.weight": "up",
    ".alpha": "alpha",
}
REMEDY = "load it with diffusers, and save it with save_lora_weights or as a whole transformer"


@dataclass(frozen=True)
class Adapter:
    """The adapter of one linear layer: ``down`` [r, in], ``up`` [out, r], and a / r."""

    down: torch.Tensor
    up: torch.Tensor
    factor: float

    def added_to(self, weight: torch.Tensor, scale: float) -> torch.Tensor:
        """``weight`` [out, in] with the adapter in it, in its own dtype; computed in float32."""
        delta = self.up.float() @ self.down.float()
        return (weight.float() + (scale * self.factor) * delta.to(weight.device)).to(weight.dtype)

    @property
    def parameters(self) -> int:
        """How many numbers were trained."""
        return self.down.numel() + self.up.numel()


def read_adapters(file: Path) -> dict[str, Adapter]:
    """The adapters of a file by the name of the module. Raises :class:`ArtifactError` on a file of another form."""
    with reading(f"a LoRA in {file}", REMEDY):
        check_header(file)
        with safe_open(str(file), framework="pt") as opened:
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
            told = _settings(file, opened.metadata() or {})
    found: dict[str, dict[str, torch.Tensor]] = {}
    for name, tensor in tensors.items():
        module, what = _parsed(file, name)
        found.setdefault(module, {})[what] = tensor
    if not found:
        raise ArtifactError(expected=f"a LoRA in {file}", got="no tensor", remedy="name another file")
    return {module: _adapter(file, module, parts, told) for module, parts in found.items()}


def _parsed(file: Path, name: str) -> tuple[str, str]:
    for end, what in ENDS.items():
        if name.endswith(end):
            module = name.removesuffix(end)
            for prefix in PREFIXES:
                module = module.removeprefix(prefix)
            return module, what
    raise ArtifactError(expected=f"matrices of a LoRA, or their alpha, in {file}", got=name, remedy=REMEDY)


def _settings(file: Path, metadata: Mapping[str, str]) -> dict[str, Any]:
    """peft's settings, as diffusers writes them into the header; empty where there are none: then a / r is 1."""
    known = json.loads(metadata.get("lora_adapter_metadata", "{}"))
    told = {name.removeprefix("transformer."): value for name, value in known.items()}
    unknown = [name for name in ("use_dora", "alpha_pattern", "rank_pattern", "lora_bias") if told.get(name)]
    if unknown:
        raise ArtifactError(expected=f"a plain LoRA in {file}", got=f"one with {unknown[0]}", remedy=REMEDY)
    return told


def _adapter(file: Path, module: str, parts: Mapping[str, torch.Tensor], told: Mapping[str, Any]) -> Adapter:
    down, up = parts.get("down"), parts.get("up")
    if down is None or up is None or down.ndim != 2 or up.ndim != 2 or len(down) != up.shape[1] or not len(down):
        shapes = {name: list(part.shape) for name, part in parts.items()}
        raise ArtifactError(expected=f"two matrices of one rank for {module} in {file}", got=str(shapes), remedy=REMEDY)
    rank = len(down)
    alpha = float(parts["alpha"]) if "alpha" in parts else float(told.get("lora_alpha", rank))
    return Adapter(down, up, alpha / (math.sqrt(rank) if told.get("use_rslora") else rank))


def merged(file: Path, transformer: nn.Module, scale: float) -> dict[str, torch.Tensor]:
    """The weights of ``transformer`` that a LoRA changes, by name, as they become."""
    found = {}
    for name, adapter in read_adapters(file).items():
        try:
            layer: Any = transformer.get_submodule(name)
        except AttributeError:
            layer = None
        wanted = [adapter.up.shape[0], adapter.down.shape[1]]
        if not isinstance(layer, nn.Linear) or list(layer.weight.shape) != wanted:
            got = "no such layer" if not isinstance(layer, nn.Linear) else f"one of {list(layer.weight.shape)}"
            raise ArtifactError(
                expected=f"a linear layer {name} of shape {wanted} for {file}",
                got=f"{got} in a {type(transformer).__name__}",
                remedy="use a LoRA that was made for this model",
            )
        found[f"{name}.weight"] = adapter.added_to(layer.weight.detach(), scale)
    return found
