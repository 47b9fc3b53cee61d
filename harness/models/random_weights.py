"""Pipelines with the true architecture of published models and random weights: for speed, cost and memory, never quality.

Transformer and autoencoder have the published configuration, which each family's file states with its source. The text encoders
have not: they keep their width and have fewer layers, and their tokenizers know characters only. So the TEXT STAGE IS NOT TIMED
AS PUBLISHED, and memory lacks the other layers; a note says so in the record of every run. The number of caption tokens, which
the denoiser's cost depends on, is the published one.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch

from harness.config.spec import RANDOM
from harness.errors import UsageError
from harness.models.architecture import Architecture
from harness.models.families.base import Described, Family
from harness.models.families.table import families, family_of

DTYPES: Mapping[str, torch.dtype] = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def architectures(task: str) -> dict[str, Architecture]:
    """All that serve a task, by name."""
    return {name: one for family in families().values() if family.task == task for name, one in family.architectures.items()}


def find_architecture(name: str, task: str) -> Architecture:
    """The architecture of ``random:NAME`` or, with another number of blocks, ``random:NAME:layers=N``, or ``random:NAME:tiny``.

    Raises :class:`UsageError` where it is unknown or serves another task.
    """
    known = architectures(task)
    key, _, option = name.removeprefix(RANDOM).partition(":")
    if key not in known:
        names = ", ".join(RANDOM + key for key in known)
        raise UsageError(expected=f"for task {task} one of {names}", got=repr(name), remedy="choose one of these, or a folder")
    if not option:
        return known[key]
    if option == "tiny":
        return known[key].shrunk(family_of(known[key].pipeline).tiny)
    layers = option.removeprefix("layers=")
    if not layers.isdecimal() or not 1 <= int(layers) <= 1000:
        options = f"{RANDOM}{key}:layers=N with N of 1 to 1000, or {RANDOM}{key}:tiny"
        raise UsageError(expected=options, got=repr(name), remedy="correct the option")
    return known[key].cut(int(layers))


def describe(architecture: Architecture, height: int = 0, width: int = 0) -> tuple[Family, Described]:
    """Its family and its facts, before any weight is made."""
    kind, asked = architecture.pipeline, architecture.asked
    return family_of(kind), Described(kind, architecture.configs, architecture.limits, height or asked, width or asked)
