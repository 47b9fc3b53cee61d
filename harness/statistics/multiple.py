"""Many tests at once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

Key = TypeVar("Key")


def holm(p_values: Mapping[Key, float]) -> dict[Key, float]:
    """Holm's step-down adjustment (1979): the chance of a single false finding in the whole family stays below each level.

    >>> holm({"fid": 0.01, "psnr": 0.04, "ssim": 0.5})
    {'fid': 0.03, 'psnr': 0.08, 'ssim': 0.5}
    """
    adjusted: dict[Key, float] = {}
    running = 0.0
    for rank, (key, p) in enumerate(sorted(p_values.items(), key=lambda item: item[1])):
        running = max(running, min(1.0, (len(p_values) - rank) * p))
        adjusted[key] = running
    return {key: adjusted[key] for key in p_values}
