"""Loading diffusers pipelines from a folder or a hub, with every foreseen fault named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers
from safetensors import SafetensorError, safe_open

from harness.errors import ArtifactError, UsageError
from harness.pipeline import Pipeline
from harness.spec import ExperimentSpec, locate

KINDS = {
    "class": ("DiTPipeline",),
    "text": ("PixArtAlphaPipeline", "PixArtSigmaPipeline"),
}


def resolve_device(device: str) -> str:
    """``auto`` is the first GPU, else the CPU. Raises :class:`UsageError` where the named device is not there."""
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UsageError(expected="a device that torch can use", got=f"{device!r}: {error}", remedy="--device cpu") from error
    return device


def read_index(name: str, task: str) -> Path:
    """The pipeline's folder, after checking that it is a pipeline of the right kind for the task."""
    folder = locate(name)
    index = folder / "model_index.json"
    if not index.exists():
        raise ArtifactError(
            expected=f"a diffusers pipeline folder at {name}", got="no model_index.json there",
            remedy="check the path; bundled models: zoo/tiny-pixart, zoo/tiny-dit",
        )  # fmt: skip
    try:
        kind = json.loads(index.read_text())["_class_name"]
    except (ValueError, KeyError, TypeError) as error:
        raise ArtifactError(expected=f"a pipeline index in {index}", got=repr(error), remedy="restore that file") from error
    if kind not in KINDS[task]:
        raise ArtifactError(
            expected=f"{' or '.join(KINDS[task])} for task {task}", got=kind, remedy="set `task`, or use another model"
        )
    return folder


def backbone_depth(folder: Path) -> int:
    """The number of transformer blocks, from the config alone."""
    try:
        return int(json.loads((folder / "transformer" / "config.json").read_text())["num_layers"])
    except (OSError, ValueError, KeyError) as error:
        raise ArtifactError(
            expected=f"transformer/config.json in {folder}", got=repr(error), remedy="restore the folder"
        ) from error


def quiet_libraries() -> None:
    """No progress bars or advice from diffusers and transformers: the harness has its own."""
    diffusers.utils.logging.set_verbosity_error()
    diffusers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()


def load_pipeline(spec: ExperimentSpec) -> Pipeline:
    """The pipeline of a spec on its device. Raises :class:`ArtifactError` on missing, damaged or foreign weights."""
    folder = read_index(spec.pipeline, spec.task)
    try:
        pipe = diffusers.DiffusionPipeline.from_pretrained(
            str(folder), dtype=torch.float32, use_safetensors=True, local_files_only=True
        )
        for name in ("transformer", "vae"):
            _check_complete(folder / name, getattr(pipe, name))
    except (OSError, ValueError, RuntimeError, TypeError, KeyError, SafetensorError) as error:
        raise ArtifactError(
            expected=f"intact safetensors weights that fit their config in {folder}", got=str(error).strip().splitlines()[0],
            remedy="restore or download the folder again",
        ) from error  # fmt: skip
    return Pipeline(
        pipe, folder=folder, steps=spec.steps, guidance=spec.guidance, solver=spec.solver, precision=spec.precision,
        device=resolve_device(spec.device),
    )  # fmt: skip


def _check_complete(folder: Path, model: Any) -> None:
    """diffusers fills missing weights with random numbers and a warning; here that is an error."""
    present: set[str] = set()
    for file in folder.glob("*.safetensors"):
        with safe_open(str(file), framework="pt") as weights:
            present |= set(weights.keys())
    missing = set(model.state_dict()) - present
    if missing:
        raise ValueError(f"{len(missing)} weights are missing in {folder}, for example {sorted(missing)[0]}")
