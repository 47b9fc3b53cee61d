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
from harness.cost.plan import Backbone, Plan
from harness.errors import ArtifactError, UsageError
from harness.hub import PREFIX, fetch_model
from harness.models.families.base import Described, Family, backbone_of
from harness.models.families.table import families, family_of
from harness.models.random_weights import DTYPES, describe, find_architecture, is_random
from harness.models.reading import CLASSES, check_index, check_part, load_tensors, offline, read_settings, reading
from harness.paths import locate
from harness.sampling.pipeline import Pipeline
from harness.sampling.precision import exact_float32
from harness.storage.documents import parse_json
from harness.storage.files import read_small

SETTINGS = ("*.json", "*/*.json", "*/*.model", "*/*.txt", "*/*.jinja")
WEIGHTS = ("transformer", "vae", "text_encoder")  # how the names of parts with weights begin
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


def find_plan(spec: ExperimentSpec) -> Plan:
    """What the spec's plain run costs, after the checks that need no weights. From the hub only settings are fetched."""
    if is_random(spec.pipeline):
        family, model = describe(find_architecture(spec.pipeline, spec.task))
        folder = None
    else:
        located = locate_weights(spec, complete=False)
        folder = located.folder
        family, model = family_of(read_index(folder, spec.task)), describe_folder(located)
        check_fits(family, model, located)
    guidance = family.guidance(model.configs, spec.guidance, 1.0)
    return Plan.full(shapes_of(family, model, folder), spec.steps, guidance, spec.solver)


def locate_weights(spec: ExperimentSpec, *, complete: bool) -> Located:
    """The folders of a pipeline that has been trained, downloaded first where it is on the hub: ``complete``ly, or settings."""
    if not spec.pipeline.startswith(PREFIX):
        folder = locate(spec.pipeline)
        read_index(folder, spec.task)
        return Located(folder, folder / "transformer")
    base, _, own = spec.pipeline.removeprefix(PREFIX).partition("+")
    folder = _download(base, [])
    read_index(folder, spec.task)
    if complete:
        folder = _download(base, [part for part in parts_of(folder) if not (own and part == "transformer")])
    if not own:
        return Located(folder, folder / "transformer")
    return Located(folder, _download(own, ["transformer"] if complete else []) / "transformer")


def parts_of(folder: Path) -> list[str]:
    """The parts of a pipeline that have weights, by its index."""
    index = check_index(folder)
    return [name for name, kind in index.items() if name.startswith(WEIGHTS) and isinstance(kind, list) and kind[0]]


def _download(name: str, parts: Sequence[str]) -> Path:
    """Settings, and the weights of ``parts``: safetensors, or the ``.bin`` of a part that has none."""
    folder = fetch_model(name, SETTINGS)
    if parts:
        folder = fetch_model(name, [*SETTINGS, *(f"{part}/*.safetensors" for part in parts)])
    old = [part for part in parts if (folder / part).is_dir() and not list((folder / part).glob("*.safetensors"))]
    return fetch_model(name, [f"{part}/*.bin" for part in old]) if old else folder


def read_index(folder: Path, task: str) -> str:
    """The name of the pipeline's class, after checking that its family is known and serves the task."""
    index = folder / "model_index.json"
    if not index.exists():
        raise ArtifactError(
            expected=f"a diffusers pipeline folder at {folder}",
            got="no model_index.json there",
            remedy="check the path; bundled models: zoo/tiny-pixart, zoo/tiny-dit; others: hub:OWNER/NAME, random:NAME",
        )
    kind = check_index(folder).get("_class_name")
    wanted = [name for family in families().values() if family.task == task for name in family.pipelines]
    if kind not in wanted:
        raise ArtifactError(
            expected=f"{' or '.join(wanted)} for task {task}",
            got=str(kind),
            remedy="set `task`, use another model, or add its family: docs/add-a-family.md",
        )
    return str(kind)


def describe_folder(located: Located) -> Described:
    """The settings of a pipeline's parts. Raises :class:`ArtifactError` where they cannot be read."""
    folder, configs, limits = located.folder, dict[str, dict[str, Any]](), dict[str, int]()
    for part in sorted(path for path in folder.iterdir() if path.is_dir()):
        if (part / "tokenizer_config.json").exists():
            longest = read_settings(part / "tokenizer_config.json").get("model_max_length")
            if isinstance(longest, (int, float)) and longest >= 1:
                limits[part.name] = int(longest)
        for name in ("config.json", "scheduler_config.json"):
            if (part / name).exists():
                configs[part.name] = read_settings(part / name)
    with reading(f"transformer/config.json in {located.transformer.parent}", "restore the folder"):
        configs["transformer"] = read_settings(located.transformer / "config.json")
    return Described(check_index(folder)["_class_name"], configs, limits)


def shapes_of(family: Family, model: Described, folder: Path | None) -> Backbone:
    """The transformer's shapes and costs. Raises :class:`ArtifactError` where its config is none of its family."""
    try:
        return backbone_of(family, model, folder)
    except (KeyError, ValueError, TypeError, AttributeError, ZeroDivisionError) as error:
        raise ArtifactError(
            expected=f"transformer/config.json in {folder}", got=repr(error), remedy="restore the folder"
        ) from error


def check_fits(family: Family, model: Described, located: Located) -> None:
    """Raise :class:`ArtifactError` where a transformer was made for another base: told by the settings, before any weight."""
    wrong = family.misfits(model.configs)
    if wrong:
        raise ArtifactError(
            expected=f"a transformer for the {model.pipeline} in {located.folder}",
            got=f"{'; '.join(wrong)} in {located.transformer}",
            remedy="name a transformer and a base of one family",
        )


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
        pipe, folder, notes = architecture.build(DTYPES[spec.dtype]), None, architecture.notes
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
        for part in parts_of(folder):
            _check_files(located.transformer if part == "transformer" else folder / part)
        if located.transformer != folder / "transformer":
            kind = transformer_class(located.transformer)
            own = kind.from_pretrained(str(located.transformer), **settings)
            pipe = diffusers.DiffusionPipeline.from_pretrained(str(folder), transformer=own, **settings)
        else:
            pipe = diffusers.DiffusionPipeline.from_pretrained(str(folder), **settings)
        _check_complete(located.transformer, pipe.transformer)
        _check_complete(folder / "vae", pipe.vae)
    return pipe


def transformer_class(folder: Path) -> Any:
    """The class that a transformer's settings name. Raises :class:`ValueError` where it is not on the list."""
    name = str(read_settings(folder / "config.json").get("_class_name"))
    if name not in CLASSES["diffusers"]:
        raise ValueError(f"a transformer of class {name}")
    return getattr(diffusers, name)


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
