"""All families, built in and of other packages, and which of them a pipeline belongs to."""

from __future__ import annotations

from functools import cache
from importlib.metadata import entry_points
from typing import Any

from harness.errors import ArtifactError, UsageError
from harness.models.families import dit, flux, pixart, sana, sd3
from harness.models.families.base import Described, Family

GROUP = "ilf_bench.families"  # entry points: a name, and the FAMILY of a module of another package
BUILT_IN = (dit.FAMILY, pixart.FAMILY, sd3.FAMILY, flux.FAMILY, sana.FAMILY)


@cache
def families() -> dict[str, Family]:
    """Every family by its name. Raises :class:`UsageError` where another package's is none, or has a name that is taken."""
    found = {family.name: family for family in BUILT_IN}
    for entry in entry_points(group=GROUP):
        try:
            family = entry.load()
        except Exception as error:
            raise UsageError(
                expected=f"a family at {entry.value}", got=repr(error), remedy=f"fix or remove the package of {entry.name}"
            ) from error
        if not isinstance(family, Family) or family.name in found:
            got = f"the name {family.name} again" if isinstance(family, Family) else type(family).__name__
            raise UsageError(expected=f"a Family of a new name at {entry.value}", got=got, remedy="see docs/add-a-family.md")
        found[family.name] = family
    return found


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
    return Described(type(pipe).__name__, configs, limits, height, width)


def _settings(config: Any) -> dict[str, Any]:
    return config.to_dict() if hasattr(config, "to_dict") else dict(config)
