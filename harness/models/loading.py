"""Loading diffusers pipelines from a folder or a hub, with every foreseen fault named."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import diffusers
import huggingface_hub
import torch
import transformers
from safetensors import safe_open

from harness.config.spec import ExperimentSpec
from harness.cost.flops import Geometry
from harness.cost.macs import CAPTION_TOKENS
from harness.cost.plan import Backbone
from harness.errors import ArtifactError, UsageError
from harness.hub import PREFIX, fetch_model
from harness.models.random_weights import DTYPES, build_random, find_architecture, is_random, transformer_config
from harness.models.reading import check_index, check_part, load_tensors, offline, read_settings, reading
from harness.paths import locate
from harness.sampling.pipeline import Pipeline
from harness.sampling.precision import exact_float32
from harness.storage.documents import parse_json
from harness.storage.files import read_small

KINDS = {
    "class": ("DiTPipeline",),
    "text": ("PixArtAlphaPipeline", "PixArtSigmaPipeline"),
}

SETTINGS = ("*.json", "*/*.json", "*/*.model", "*/*.txt")
PARTS = ("transformer", "vae", "text_encoder")
LEGACY = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}  # the VAE's attention before 2023


@dataclass(frozen=True)
class Located:
    """The pipeline's folder and the transformer's, which lies elsewhere where it has a repository of its own."""

    folder: Path
    transformer: Path


def resolve_device(device: str) -> str:
    """``auto`` is the first GPU, else the CPU. Raises :class:`UsageError` where the named device is not there."""
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UsageError(expected="a device that torch can use", got=f"{device!r}: {error}", remedy="--device cpu") from error
    return device


def find_backbone(spec: ExperimentSpec) -> Backbone:
    """Depth and folder of the spec's model, after the checks that need no weights. From the hub only settings are fetched."""
    if is_random(spec.pipeline):
        architecture = find_architecture(spec.pipeline, spec.task)
        return Backbone.of(transformer_config(architecture), architecture.tokens)
    located = locate_weights(spec, complete=False)
    config = read_config(located.transformer)
    check_fits(config, located)
    return Backbone.of(config, caption_tokens(located.folder), located.folder)


def locate_weights(spec: ExperimentSpec, *, complete: bool) -> Located:
    """The folders of a pipeline that has been trained, downloaded first where it is on the hub: ``complete``ly, or settings."""
    if not spec.pipeline.startswith(PREFIX):
        folder = read_index(locate(spec.pipeline), spec.task)
        return Located(folder, folder / "transformer")
    base, _, own = spec.pipeline.removeprefix(PREFIX).partition("+")
    folder = _download(base, [part for part in PARTS if not (own and part == "transformer")] if complete else [])
    read_index(folder, spec.task)
    if not own:
        return Located(folder, folder / "transformer")
    return Located(folder, _download(own, ["transformer"] if complete else []) / "transformer")


def _download(name: str, parts: Sequence[str]) -> Path:
    """Settings, and the weights of ``parts``: safetensors, or the ``.bin`` of a part that has none."""
    folder = fetch_model(name, SETTINGS)
    if parts:
        folder = fetch_model(name, [*SETTINGS, *(f"{part}/*.safetensors" for part in parts)])
    old = [part for part in parts if (folder / part).is_dir() and not list((folder / part).glob("*.safetensors"))]
    return fetch_model(name, [f"{part}/*.bin" for part in old]) if old else folder


def read_index(folder: Path, task: str) -> Path:
    """The folder itself, after checking that it is a pipeline of the right kind for the task."""
    index = folder / "model_index.json"
    if not index.exists():
        raise ArtifactError(
            expected=f"a diffusers pipeline folder at {folder}",
            got="no model_index.json there",
            remedy="check the path; bundled models: zoo/tiny-pixart, zoo/tiny-dit; others: hub:OWNER/NAME, random:NAME",
        )
    kind = check_index(folder).get("_class_name")
    if kind not in KINDS[task]:
        raise ArtifactError(
            expected=f"{' or '.join(KINDS[task])} for task {task}", got=str(kind), remedy="set `task`, or use another model"
        )
    return folder


def read_config(transformer: Path) -> dict[str, Any]:
    """The transformer's settings, as far as a cost prediction needs them. Raises :class:`ArtifactError` on others."""
    try:
        config = read_settings(transformer / "config.json")
        Geometry.of(config, 0)
        return config
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ArtifactError(
            expected=f"transformer/config.json in {transformer.parent}", got=repr(error), remedy="restore the folder"
        ) from error


def check_fits(config: dict[str, Any], located: Located) -> None:
    """Raise :class:`ArtifactError` where a transformer was made for another base: told by the settings, before any weight."""
    base = located.folder
    kind = check_index(base)["_class_name"]
    wanted = {"norm_type": "ada_norm_zero" if kind == "DiTPipeline" else "ada_norm_single"}
    for part, theirs, ours in (("vae", "latent_channels", "in_channels"), ("text_encoder", "d_model", "caption_channels")):
        file = base / part / "config.json"
        value = read_settings(file).get(theirs) if file.exists() else None
        if value is not None:
            wanted[ours] = value
    wrong = [
        f"{key} {config[key]} where the base needs {value}" for key, value in wanted.items() if config.get(key, value) != value
    ]
    if wrong:
        raise ArtifactError(
            expected=f"a transformer for the {kind} in {base}",
            got=f"{'; '.join(wrong)} in {located.transformer}",
            remedy="name a transformer and a base of one family",
        )


def caption_tokens(folder: Path) -> int:
    """The longest caption of a pipeline: the published length of its kind, or its tokenizer's where that is shorter."""
    limit, settings = CAPTION_TOKENS.get(check_index(folder)["_class_name"], 0), folder / "tokenizer" / "tokenizer_config.json"
    own = read_settings(settings).get("model_max_length") if settings.exists() else None
    return min(limit, int(own)) if isinstance(own, (int, float)) and own >= 1 else limit


def quiet_libraries() -> None:
    """No progress bars or advice from diffusers and transformers: the harness has its own."""
    diffusers.utils.logging.set_verbosity(logging.CRITICAL)  # it logs, and then raises
    diffusers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity(logging.CRITICAL)
    transformers.utils.logging.disable_progress_bar()
    huggingface_hub.logging.set_verbosity_error()  # type: ignore[no-untyped-call]


def load_pipeline(spec: ExperimentSpec) -> Pipeline:
    """The pipeline of a spec on its device, where float32 is then exact.

    Raises :class:`ArtifactError` on missing, damaged or foreign weights.
    """
    exact_float32()
    if is_random(spec.pipeline):
        architecture = find_architecture(spec.pipeline, spec.task)
        pipe, folder, notes = build_random(architecture, DTYPES[spec.dtype]), None, architecture.notes
    else:
        located = locate_weights(spec, complete=True)
        pipe, folder, notes = _read(located, DTYPES[spec.dtype]), located.folder, ()
    return Pipeline(
        pipe,
        folder=folder,
        steps=spec.steps,
        guidance=spec.guidance,
        solver=spec.solver,
        precision=spec.precision,
        device=resolve_device(spec.device),
        notes=notes,
        compile=spec.compile,
    )


def _read(located: Located, dtype: torch.dtype) -> Any:
    """The diffusers pipeline, every weight of it from the files."""
    folder = located.folder
    safe = bool(list(located.transformer.glob("*.safetensors")))
    settings: dict[str, Any] = {"dtype": dtype, "local_files_only": True, "use_safetensors": True if safe else None}
    with reading(f"intact weights that fit their config in {folder}", "restore or download the folder again"), offline():
        for own_folder in (path for path in folder.iterdir() if path.is_dir()):
            check_part(own_folder)
        for part in PARTS:
            _check_files(located.transformer if part == "transformer" else folder / part)
        if located.transformer != folder / "transformer":
            own = diffusers.Transformer2DModel.from_pretrained(str(located.transformer), **settings)
            pipe = diffusers.DiffusionPipeline.from_pretrained(str(folder), transformer=own, **settings)
        else:
            pipe = diffusers.DiffusionPipeline.from_pretrained(str(folder), **settings)
        _check_complete(located.transformer, pipe.transformer)
        _check_complete(folder / "vae", pipe.vae)
    return pipe


def _check_files(folder: Path) -> None:
    """Whether every shard that an index names is there, no download was cut, and nothing differs from the folder's digests."""
    check_part(folder)
    cut = [path.name for path in folder.glob("*.incomplete")]
    for index in folder.glob("*.index.json"):
        wanted = set(parse_json(read_small(index))["weight_map"].values())
        kind = Path(next(iter(wanted), "")).suffix
        present = {path.name for path in folder.glob("*" + kind) if path.exists()}
        if present or kind == ".safetensors":  # an index of .bin files beside safetensors is of no concern
            cut += sorted(wanted - present)
    if cut:
        raise ValueError(f"a half-downloaded {folder.name}: {cut[0]} is not whole, and {len(cut) - 1} more")


def _check_complete(folder: Path, model: Any) -> None:
    """diffusers fills missing weights with random numbers and a warning; here that is an error."""
    present: set[str] = set()
    for file in folder.glob("*.safetensors"):
        with safe_open(str(file), framework="pt") as weights:
            present |= set(weights.keys())
    if not present:
        for file in folder.glob("*.bin"):
            present |= set(load_tensors(file, map_location="meta"))
    renamed = {".".join(LEGACY.get(word, word) if ".attentions." in key else word for word in key.split(".")) for key in present}
    missing = set(model.state_dict()) - present - renamed
    if missing:
        raise ValueError(f"{len(missing)} weights are missing in {folder}, for example {sorted(missing)[0]}")
