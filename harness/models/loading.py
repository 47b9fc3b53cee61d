"""Loading diffusers pipelines from a folder or a hub, with every foreseen fault named."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import diffusers
import huggingface_hub
import torch
import transformers

from harness.config.spec import ExperimentSpec, is_random
from harness.cost.guidance import Guidance
from harness.cost.memory import Offload
from harness.cost.plan import Backbone, Plan
from harness.errors import ArtifactError, NotMeasured, UsageError
from harness.hub import PREFIX, fetch_model
from harness.models.components import assemble, check_present, check_tokenizers, load_weighted, weighted_components
from harness.models.families.base import Described, Family, backbone_of
from harness.models.families.table import families, family_of
from harness.models.random_weights import DTYPES, describe, find_architecture
from harness.models.reading import CLASSES, check_index, check_part, offline, read_settings, reading
from harness.paths import locate
from harness.sampling.pipeline import Pipeline
from harness.sampling.precision import exact_float32, resolve_device
from harness.sampling.solvers import build_solver

PACKED = 2  # latents on a side of a packed token
SETTINGS = ("*.json", "*/*.json", "*/*.model", "*/*.txt", "*/*.jinja")


@dataclass(frozen=True)
class Located:
    """The pipeline's folder and the transformer's, which lies elsewhere where it has a repository of its own."""

    folder: Path
    transformer: Path

    @property
    def own_transformer(self) -> Path | None:
        """The transformer's folder, where it is not the pipeline's."""
        return None if self.transformer == self.folder / "transformer" else self.transformer


def find_plan(spec: ExperimentSpec) -> Plan:
    """What the spec's plain run costs, after the checks that need no weights. From the hub only settings are fetched."""
    if is_random(spec.pipeline):
        family, model = describe(find_architecture(spec.pipeline, spec.task), spec.height, spec.width)
        folder, own = None, None
    else:
        located = locate_weights(spec, complete=False)
        folder, own = located.folder, located.own_transformer
        check_present(folder)
        family, model = family_of(read_index(folder, spec.task)), describe_folder(located, spec.height, spec.width)
        check_fits(family, model, located)
        check_solver(spec.solver, folder)
    guidance = checked_guidance(family, model, spec)
    backbone = replace(shapes_of(family, model, folder), own_transformer=own)
    return Plan.full(backbone, spec.steps, guidance, spec.solver)


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
        folder = _download(base, [part for part in weighted_components(folder) if not (own and part == "transformer")])
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


def describe_folder(located: Located, height: int = 0, width: int = 0) -> Described:
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
    configs["pipeline"] = check_index(folder)
    return Described(configs["pipeline"]["_class_name"], configs, limits, height, width)


def checked_guidance(family: Family, model: Described, spec: ExperimentSpec) -> Guidance:
    """The guidance of a spec. Raises :class:`UsageError` where a model would leave the spec's size, guidance or prompt unused."""
    check_size(family, model, spec)
    guidance = family.guidance(model.configs, spec.guidance, spec.true_guidance)
    unused = {
        "true_guidance": spec.true_guidance != 1 and guidance == family.guidance(model.configs, spec.guidance, 1.0),
        "negative_prompt": bool(spec.negative_prompt) and not (family.negative and family.task == "text" and guidance.on),
    }
    for name in (name for name, is_unused in unused.items() if is_unused):
        expected = f"no {name} where {family.title} does not use it: at guidance {spec.guidance:g}"
        raise UsageError(expected=expected, got=repr(getattr(spec, name)), remedy=f"leave {name} out")
    return guidance


def check_size(family: Family, model: Described, spec: ExperimentSpec) -> None:
    """Raise :class:`UsageError` where a size is asked for that the family's models do not take, or would round without a word."""
    if not spec.height:
        return
    if not family.any_size:
        raise UsageError(
            expected=f"no height and width for a {family.title}, which makes one size",
            got=f"{spec.height} x {spec.width}",
            remedy="leave them out",
        )
    with reading(f"settings of a {family.title}", "restore the folder"):
        side = model.scale * (family.patches(model.transformer)[0] or PACKED)
    if spec.height % side or spec.width % side:
        rounded = " x ".join(str(max(side, side * round(pixels / side))) for pixels in (spec.height, spec.width))
        raise UsageError(
            expected=f"a height and width in multiples of {side} pixels, one token of this {family.title}",
            got=f"{spec.height} x {spec.width}",
            remedy=f"{rounded} is the nearest",
        )


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


def check_solver(name: str, folder: Path) -> None:
    """Raise :class:`UsageError` where a named solver cannot represent the scheduler that lies in a pipeline's folder."""
    with reading(f"a scheduler in {folder / 'scheduler'}", "restore or download the folder again"):
        own = getattr(diffusers, check_index(folder)["scheduler"][1]).from_pretrained(folder / "scheduler", local_files_only=True)
    try:
        build_solver(name, own)
    except NotMeasured as error:
        expected = f"{error.expected} in {folder / 'scheduler'}"
        raise UsageError(expected=expected, got=error.got, remedy="--set solver=checkpoint, or another one") from error


def quiet_libraries() -> None:
    """No progress bars or advice from diffusers and transformers: the harness has its own."""
    diffusers.utils.logging.set_verbosity(logging.CRITICAL)  # it logs, and then raises
    diffusers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity(logging.CRITICAL)
    transformers.utils.logging.disable_progress_bar()
    huggingface_hub.logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    warnings.filterwarnings("ignore", message="Mismatch dtype between input and weight")  # of float32 weights under autocast


def load_pipeline(spec: ExperimentSpec, offload: Offload = "none") -> Pipeline:
    """The pipeline of a spec on its device, where float32 is then exact. ``offload``: see :mod:`harness.sampling.residency`.

    Raises :class:`ArtifactError` on missing, damaged or foreign weights.
    """
    exact_float32()
    if is_random(spec.pipeline):
        architecture = find_architecture(spec.pipeline, spec.task)
        pipe, folder, own, notes = architecture.build(DTYPES[spec.dtype]), None, None, architecture.notes
    else:
        located = locate_weights(spec, complete=True)
        pipe, folder, own, notes = read_pipeline(located, DTYPES[spec.dtype]), located.folder, located.own_transformer, ()
    known = {"folder": folder, "own_transformer": own, "notes": notes}
    return pipeline_of(pipe, spec, resolve_device(spec.device), spec.precision, offload, **known)


def pipeline_of(
    pipe: Any, spec: ExperimentSpec, device: str, precision: str, offload: Offload = "none", **known: Any
) -> Pipeline:
    """A diffusers pipeline with the settings of a spec."""
    asked = find_architecture(spec.pipeline, spec.task).asked if is_random(spec.pipeline) else 0
    return Pipeline(
        pipe,
        steps=spec.steps,
        guidance=spec.guidance,
        true_guidance=spec.true_guidance,
        negative_prompt=spec.negative_prompt,
        height=spec.height or asked,
        width=spec.width or asked,
        solver=spec.solver,
        precision=precision,
        device=device,
        compile=spec.compile,
        decode_dtype=spec.decode_dtype,
        decode_tiled=spec.decode_tiled,
        offload=offload,
        **known,
    )


def read_pipeline(located: Located, dtype: torch.dtype) -> Any:
    """The diffusers pipeline, every weight of it from the files, and its tokenizers those of its text encoders."""
    folder = located.folder
    check_present(folder)
    for own_folder in (folder, *(path for path in sorted(folder.iterdir()) if path.is_dir())):
        with reading(f"intact files in {own_folder}", "restore or download that folder again"):
            check_part(own_folder)
    with offline():
        made = {name: _load_component(located, name, kind, dtype) for name, kind in weighted_components(folder).items()}
        pipe = assemble(folder, made)
    check_tokenizers(pipe, folder)
    return pipe


def _load_component(located: Located, name: str, kind: Any, dtype: torch.dtype) -> Any:
    if name == "transformer" and located.transformer != located.folder / name:
        kind = transformer_class(located.transformer)
        return load_weighted(kind, located.transformer, dtype)
    return load_weighted(kind, located.folder / name, dtype)


def transformer_class(folder: Path) -> Any:
    """The class that a transformer's settings name. Raises :class:`ValueError` where it is not on the list."""
    name = str(read_settings(folder / "config.json").get("_class_name"))
    if name not in CLASSES["diffusers"]:
        raise ValueError(f"a transformer of class {name}")
    return getattr(diffusers, name)
