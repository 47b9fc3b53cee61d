"""States of a training on disk: nested dicts of tensors in one torch file with a digest of their content."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from harness.errors import ArtifactError
from harness.models.reading import load_tensors, reading
from harness.storage.files import replacing

DIGEST, KEY = "digest", "key"  # what a file holds beside its content
REMEDY = "delete that file and train again: its content is made again"
MOST_ITEMS = 1_000_000


def content_digest(value: Any) -> str:
    """SHA-256 of nested dicts and lists of tensors and plain values."""
    total, seen = hashlib.sha256(), 0

    def add(item: Any) -> None:
        nonlocal seen
        seen += 1
        if seen > MOST_ITEMS:  # lists that hold one another stand for more than there are
            raise ValueError(f"a state of more than {MOST_ITEMS:,} items")
        if isinstance(item, torch.Tensor):
            total.update(item.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
        elif isinstance(item, dict):
            for key in sorted(item, key=str):
                total.update(str(key).encode())
                add(item[key])
        elif isinstance(item, (list, tuple)):
            for part in item:
                add(part)
        else:
            total.update(repr(item).encode())

    add(value)
    return total.hexdigest()


def write_state(path: Path, state: dict[str, Any]) -> None:
    """Under a temporary name, then renamed: the whole file or none."""
    with replacing(path) as file:
        torch.save(state | {DIGEST: content_digest(state)}, file)


def read_state(path: Path, remedy: str = REMEDY) -> dict[str, Any]:
    """What was written, on the CPU. Raises :class:`ArtifactError` on a damaged file; nothing in it is run as code."""
    with reading(f"an intact training state at {path}", remedy):
        state: dict[str, Any] = load_tensors(path, remedy, map_location="cpu")
        if state.pop(DIGEST, None) != content_digest(state):
            raise ValueError("another content than was written")
    return state


def kept(path: Path, key: str, make: Callable[[], dict[str, Any]], remedy: str = REMEDY) -> dict[str, Any]:
    """Made once and kept in ``path`` with ``key``, what it was made for. Raises :class:`ArtifactError` on another's."""
    if not path.exists():
        state = make()
        write_state(path, {KEY: key} | state)
        return state
    state = read_state(path, remedy)
    if (found := state.pop(KEY, None)) != key:
        raise ArtifactError(expected=f"{path} made for {key}", got=f"one for {found}", remedy=remedy)
    return state
