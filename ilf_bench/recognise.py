"""A run without a preset: what suits the family of the pipeline that was named."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

from harness.config.spec import RANDOM
from harness.errors import ArtifactError, UsageError
from harness.hub import PREFIX, fetch_model
from harness.models.families.base import Configs, Family, Usual
from harness.models.families.table import families, family_of
from harness.models.reading import check_index, read_settings
from harness.paths import locate

FEW = 8  # a model of fewer steps is distilled to them: caches that wait some steps have nothing to do
PROMPTS = {"text": "presets/speed-prompts.txt", "class": "classes:4"}


def without_preset(pipeline: str, steps: int | None = None) -> tuple[str, dict[str, Any]]:
    """A bundled preset of the right task, and every field of it that the pipeline decides.

    ``pipeline`` as in a preset; ``steps`` in place of the usual ones. Raises :class:`ArtifactError` on a folder that is no
    pipeline or is one of an unknown family, and :class:`UsageError` on an unknown ``random:NAME``.
    """
    family, configs = _random(pipeline) if pipeline.startswith(RANDOM) else _stored(pipeline)
    usual = family.usual(configs)
    usual = replace(usual, steps=steps or usual.steps)
    return f"tiny-{family.task}", {
        "name": re.sub(r"[^A-Za-z0-9._-]+", "-", pipeline.rstrip("/").rsplit("/", 1)[-1]) or family.name,
        "title": f"{family.title}, its usual settings",
        "task": family.task,
        "pipeline": pipeline,
        "solver": "checkpoint",
        "steps": usual.steps,
        "guidance": usual.guidance,
        "samples": 16,
        "batch": 4,
        "prompts": PROMPTS[family.task],
        "methods": methods_for(usual),
        "metrics": ("psnr", "ssim"),
        "reference": None,
        "timing": {"rounds": 8, "batch": 4, "warmup": 1},
    }


def methods_for(usual: Usual) -> tuple[str, ...]:
    """The full run, fewer steps as its rivals, and caches that need neither weights nor calibration."""
    steps = usual.steps
    fewer = sorted({max(1, round(share * steps)) for share in (0.75, 0.5)} - {steps}, reverse=True)
    caches = ("fora:2", "first-block:0.1") if steps < FEW else ("deepcache:interval=3", "fora:2", "first-block:0.1")
    return ("full", *(f"steps:{n}" for n in fewer), *caches)


def _random(pipeline: str) -> tuple[Family, Configs]:
    name = pipeline.removeprefix(RANDOM).partition(":")[0]
    known = {key: (family, one) for family in families().values() for key, one in family.architectures.items()}
    if name not in known:
        names = ", ".join(RANDOM + key for key in known)
        raise UsageError(expected=f"one of {names}", got=repr(pipeline), remedy="choose one of these, or a folder")
    family, architecture = known[name]
    return family, architecture.configs


def _stored(pipeline: str) -> tuple[Family, Configs]:
    """By the pipeline's own index."""
    if pipeline.startswith(PREFIX):
        base = pipeline.removeprefix(PREFIX).partition("+")[0]
        folder = fetch_model(base, ["model_index.json", "transformer/config.json", "scheduler/scheduler_config.json"])
    else:
        folder = locate(pipeline)
    if not (folder / "model_index.json").exists():
        raise ArtifactError(
            expected=f"a diffusers pipeline folder at {folder}", got="no model_index.json there", remedy="check the path"
        )
    index = check_index(folder)
    files = {"transformer": "config.json", "scheduler": "scheduler_config.json"}
    configs = {part: read_settings(path) for part, name in files.items() if (path := folder / part / name).exists()}
    return family_of(str(index.get("_class_name"))), {"pipeline": index, "transformer": {}, **configs}
