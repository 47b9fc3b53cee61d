"""Checkpoint folders: config.json and safetensors, as diffusers' ``save_pretrained`` writes them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import ArtifactError, NotMeasured, UsageError
from harness.models import reading
from harness.models.reading import load_part
from ilf.settings import IlfSettings

if TYPE_CHECKING:
    from harness.models.families.base import Family
    from ilf.module import FeedbackModule

TRAIN = "name one: ilf:checkpoint=FOLDER; or train one: ilf-bench train PRESET"


def find_checkpoint(name: str | None, pipeline_folder: Path | None) -> Path:
    """The named folder, the folder of that name inside the pipeline's, or ``ilf`` there.

    Raises :class:`UsageError` where the named one is no checkpoint, and :class:`NotMeasured` where none is named and the
    pipeline has none: then only ILF is a failed row, and the run continues.
    """
    if name is not None:
        inside = [] if pipeline_folder is None or Path(name).is_absolute() else [pipeline_folder / name]
        found = next((folder for folder in (Path(name), *inside) if (folder / "config.json").exists()), None)
        if found is None:
            raise UsageError(expected=f"a trained feedback module in {name}", got="no config.json there", remedy=TRAIN)
        return found
    folder = None if pipeline_folder is None else pipeline_folder / "ilf"
    if folder is None or not (folder / "config.json").exists():
        raise NotMeasured(
            expected="a trained feedback module for this pipeline",
            got="random weights, which have none" if folder is None else f"no config.json in {folder}",
            remedy=TRAIN,
        )
    return folder


def read_settings(folder: Path) -> tuple[IlfSettings, dict[str, Any]]:
    """A module's settings and its learned solvers by step count, without its weights. Raises :class:`ArtifactError`."""
    try:
        config = reading.read_settings(folder / "config.json")
        if config.get("_class_name") != "FeedbackModule" or "settings" not in config:
            raise ValueError(f"a {config.get('_class_name')} with {', '.join(config)}")
        return IlfSettings(**config["settings"]), config.get("solvers") or {}
    except (ValueError, TypeError, UsageError) as error:
        raise ArtifactError(
            expected=f"a FeedbackModule's settings in {folder}", got=str(error), remedy="restore or retrain it"
        ) from error


def load_module(folder: Path) -> FeedbackModule:
    """The module in float32, eval mode. Raises :class:`ArtifactError` on missing, truncated or foreign weights."""
    from ilf.module import FeedbackModule

    read_settings(folder)
    module: FeedbackModule = load_part(
        FeedbackModule, folder, "a feedback module", "restore or retrain it", low_cpu_mem_usage=False
    )
    return module


def check_fits(module: FeedbackModule, family: Family, config: Mapping[str, Any], origin: str) -> None:
    """Raise :class:`ArtifactError` where the module was made for another backbone than a transformer with this config."""
    depth = sum(int(config[segment.depth]) for segment in family.segments)
    found, (_, last) = dict(module.config.block_settings), module.settings.blocks
    wanted = family.block_settings(config, min(last, depth))
    kind = family.segments[family.place(config, min(last, depth))[0]]
    if found != wanted or last > depth or module.kind.build is not kind.build:
        raise ArtifactError(
            expected=f"a module for {depth} blocks like {wanted}",
            got=f"one for blocks up to {last} like {found} in {origin}",
            remedy="use the module that was trained on this backbone",
        )
