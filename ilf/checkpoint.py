"""Checkpoint folders: config.json and safetensors, as diffusers' ``save_pretrained`` writes them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from harness.errors import ArtifactError, NotMeasured, UsageError
from harness.models import reading
from harness.models.reading import load_part
from harness.sampling.pipeline import Pipeline
from ilf.module import FeedbackModule, block_settings
from ilf.settings import IlfSettings

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
    read_settings(folder)
    module: FeedbackModule = load_part(
        FeedbackModule, folder, "a feedback module", "restore or retrain it", low_cpu_mem_usage=False
    )
    return module


def check_fits(module: FeedbackModule, pipeline: Pipeline, folder: Path) -> None:
    """Raise :class:`ArtifactError` where the module was made for another backbone."""
    config: Any = pipeline.transformer.config
    wanted, found = block_settings(config), dict(module.config.block_settings)
    if found != wanted or module.settings.blocks[1] > len(pipeline.blocks):
        raise ArtifactError(
            expected=f"a module for {len(pipeline.blocks)} blocks like {wanted}",
            got=f"one for blocks up to {module.settings.blocks[1]} like {found} in {folder}",
            remedy="use the module that was trained on this backbone",
        )
