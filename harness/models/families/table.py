"""All families, built in and of other packages, and which of them a pipeline belongs to."""

from __future__ import annotations

import warnings
from collections.abc import Collection
from functools import cache
from importlib.metadata import entry_points
from typing import Any

from harness.errors import ArtifactError
from harness.models.families import chroma, dit, flux, flux2, flux2_klein, pixart, qwen_image, sana, sd3, z_image
from harness.models.families.base import Described, Family

GROUP = "ilf_bench.families"  # entry points: a name, and the FAMILY of a module of another package
BUILT_IN = (
    *(dit.FAMILY, pixart.FAMILY, sd3.FAMILY, flux.FAMILY, sana.FAMILY),
    *(flux2.FAMILY, flux2_klein.FAMILY, qwen_image.FAMILY, chroma.FAMILY, z_image.FAMILY),
)


@cache
def families() -> dict[str, Family]:
    """Every family by its name. One of another package that is none, cannot be loaded or has a name that is taken is left out,
    with a warning that names it: it must not stop a run of another family."""
    found = {family.name: family for family in BUILT_IN}
    for entry in entry_points(group=GROUP):
        try:
            family = _checked(entry.load(), found)
        except Exception as error:  # whatever code of others raises
            warnings.warn(f"the family {entry.name} at {entry.value} is left out: {error!r}", stacklevel=2)
            continue
        found[family.name] = family
    return found


def _checked(family: object, found: Collection[str]) -> Family:
    if not isinstance(family, Family):
        raise TypeError(f"a Family is expected (docs/add-a-family.md), not {type(family).__name__}")
    if family.name in found:
        raise ValueError(f"there is a family {family.name} already")
    return family


def family_of(pipeline: str) -> Family:
    """The family of a pipeline by the name of its class. Raises :class:`ArtifactError` on an unknown one."""
    found = next((family for family in families().values() if pipeline in family.pipelines), None)
    if found is None:
        known = ", ".join(name for family in families().values() for name in family.pipelines)
        raise ArtifactError(
            expected=f"a pipeline of a known family: {known}", got=pipeline, remedy="add its family: docs/add-a-family.md"
        )
    return found


def described(pipe: Any, height: int = 0, width: int = 0) -> Described:
    """A diffusers pipeline in memory as its family's facts need it."""
    parts = {name: part for name, part in pipe.components.items() if part is not None}
    configs = {name: _settings(part.config) for name, part in parts.items() if hasattr(part, "config")}
    limits = {name: int(part.model_max_length) for name, part in parts.items() if hasattr(part, "model_max_length")}
    configs["pipeline"] = {name: value for name, value in pipe.config.items() if name not in pipe.components}
    return Described(type(pipe).__name__, configs, limits, height, width)


def _settings(config: Any) -> dict[str, Any]:
    return config.to_dict() if hasattr(config, "to_dict") else dict(config)
