"""Pipelines without weights, on the meta device: shapes, dtypes and code of the real one, in no memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from harness.config.spec import ExperimentSpec, is_random
from harness.models.components import assemble, weighted_components
from harness.models.loading import Located, locate_weights, pipeline_of, transformer_class
from harness.models.random_weights import DTYPES, find_architecture
from harness.models.reading import offline
from harness.sampling.pipeline import Pipeline


def empty_pipeline(spec: ExperimentSpec) -> Pipeline:
    """The pipeline of a spec on the meta device; of the hub only settings are fetched.

    Float32 weights compute in float32, whatever autocast would do.
    """
    pipe, located = _empty_pipe(spec)
    folder, own = (located.folder, located.own_transformer) if located else (None, None)
    return pipeline_of(pipe, spec, "meta", "fp32" if spec.dtype == "float32" else "auto", folder=folder, own_transformer=own)


def _empty_pipe(spec: ExperimentSpec) -> tuple[Any, Located | None]:
    dtype = DTYPES[spec.dtype]
    if is_random(spec.pipeline):
        architecture = find_architecture(spec.pipeline, spec.task)
        models = {name: architecture.empty(name).to("meta", dtype) for name in architecture.parts}
        return architecture.assembled(models), None
    located = locate_weights(spec, complete=False)
    with offline():
        models = {name: _empty(located, name, kind, dtype) for name, kind in weighted_components(located.folder).items()}
        return assemble(located.folder, models), located


def _empty(located: Located, name: str, kind: Any, dtype: torch.dtype) -> nn.Module:
    folder = located.folder / name
    if name == "transformer":
        folder = located.transformer
        kind = transformer_class(folder)
    with torch.device("meta"):
        model = _made(kind, folder).eval()
    exact = getattr(model, "_keep_in_fp32_modules", None) or () if dtype == torch.float16 else ()
    for path, tensor in (*model.named_parameters(), *model.named_buffers()):
        if tensor.is_floating_point() and not set(path.split(".")) & set(exact):
            tensor.data = tensor.data.to(dtype)
    return model


def _made(kind: Any, folder: Path) -> nn.Module:
    if issubclass(kind, PreTrainedModel):
        model: nn.Module = kind(kind.config_class.from_pretrained(str(folder), local_files_only=True))
        return model
    model = kind.from_config(kind.load_config(str(folder), local_files_only=True))
    return model
