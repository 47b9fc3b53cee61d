"""Some rows of everything that a model or a block is told."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any

import torch


def select_rows(value: Any, rows: int, chosen: slice | torch.Tensor, shared: Collection[str] = ()) -> Any:
    """The ``chosen`` rows of every tensor whose leading dimension is the batch of ``rows``, inside dicts, tuples and lists too.

    What a dict names in ``shared`` has no row for each image, whatever its shape.
    """
    if isinstance(value, torch.Tensor) and value.ndim and value.shape[0] == rows:
        return value[chosen]
    if isinstance(value, dict):
        return {key: item if key in shared else select_rows(item, rows, chosen) for key, item in value.items()}
    if isinstance(value, tuple):
        return tuple(select_rows(item, rows, chosen) for item in value)
    if isinstance(value, list) and len(value) == rows:
        return value[chosen] if isinstance(chosen, slice) else [value[i] for i in chosen.tolist()]
    return value


def join_rows(trees: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Trees of equal shape concatenated along the batch; what has no rows is the first's. Every tensor is a new one."""

    def join(values: list[Any]) -> Any:
        first = values[0]
        if isinstance(first, dict):
            return join_rows(values)
        if isinstance(first, torch.Tensor):
            return torch.cat(values) if first.ndim else first.clone()
        return [copied(item) for value in values for item in value] if isinstance(first, list) else copied(first)

    return {key: join([tree[key] for tree in trees]) for key in trees[0]}


def repeated(tree: dict[str, Any], rows: int) -> dict[str, Any]:
    """One row of everything, given to ``rows`` rows."""

    def repeat(value: Any) -> Any:
        if isinstance(value, dict):
            return repeated(value, rows)
        if isinstance(value, torch.Tensor) and value.ndim:
            return value.expand(rows, *value.shape[1:])
        return value * rows if isinstance(value, list) else value

    return {key: repeat(value) for key, value in tree.items()}


def copied(value: Any) -> Any:
    """New tensors, inside tuples too: those made in inference mode would not serve a training."""
    if isinstance(value, tuple):
        return tuple(map(copied, value))
    return value.clone() if isinstance(value, torch.Tensor) else value


def map_tensors(tree: dict[str, Any], function: Callable[[torch.Tensor], Any]) -> dict[str, Any]:
    """``function`` of every tensor, inside dicts and lists too."""

    def apply(value: Any) -> Any:
        if isinstance(value, dict):
            return map_tensors(value, function)
        if isinstance(value, list):
            return [apply(item) for item in value]
        return function(value) if isinstance(value, torch.Tensor) else value

    return {key: apply(value) for key, value in tree.items()}
