"""What a pipeline is made of, as one digest: every file of all its components, or what they hold in memory."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from harness.models.reading import INDEX, check_index
from harness.storage.hashing import contents_digest

if TYPE_CHECKING:
    from harness.sampling.pipeline import Pipeline


def component_paths(folder: Path, transformer: Path | None = None) -> list[Path]:
    """The index of a pipeline's folder, and the folder of each component, whatever its files are called.

    ``transformer``: where that one lies elsewhere. Other folders in it belong to methods.
    """
    names = [name for name, value in check_index(folder).items() if isinstance(value, list)]
    found = [folder / name for name in names if (folder / name).is_dir()]
    if transformer is not None and transformer != folder / "transformer":
        found = [transformer if path.name == "transformer" else path for path in found]
        found += [] if transformer in found else [transformer]
    return [folder / INDEX, *found]


def folder_digest(folder: Path, transformer: Path | None = None) -> str:
    """16 hexadecimal digits over a pipeline on disk: weights in any format, settings, tokenizers, the scheduler."""
    return contents_digest(component_paths(folder, transformer))


def model_digest(pipeline: Pipeline) -> str:
    """Of a pipeline's folder where it was read from one, else of what it holds in memory."""
    if pipeline.folder is None:
        return memory_digest(pipeline.pipe)
    return folder_digest(pipeline.folder, pipeline.own_transformer)


def memory_digest(pipe: Any) -> str:
    """16 hexadecimal digits over a pipeline in memory: parameters, buffers and settings of all its components."""
    total = hashlib.sha256()
    for name, part in sorted(pipe.components.items()):
        total.update(f"{name}:{type(part).__module__}.{type(part).__qualname__}:".encode())
        total.update(json.dumps(_settings(part), sort_keys=True, default=str).encode())
        for key, tensor in _tensors(part):
            held = tensor.detach().cpu().contiguous()
            total.update(f"{key}:{held.dtype}:{tuple(held.shape)}:".encode())
            total.update(held.reshape(-1).view(torch.uint8).numpy().data)
    return total.hexdigest()[:16]


def _settings(part: Any) -> Mapping[str, Any]:
    """A model's or scheduler's configuration; a tokenizer's vocabulary and options."""
    found: dict[str, Any] = {}
    if hasattr(part, "config"):
        found["config"] = dict(part.config.to_dict() if hasattr(part.config, "to_dict") else part.config)
    if hasattr(part, "get_vocab"):
        found |= {"vocabulary": part.get_vocab(), "options": getattr(part, "init_kwargs", {})}
    return found


def _tensors(part: Any) -> Iterator[tuple[str, torch.Tensor]]:
    if isinstance(part, torch.nn.Module):
        yield from part.named_parameters()
        yield from part.named_buffers()
