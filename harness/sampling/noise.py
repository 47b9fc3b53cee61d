"""Starting noise keyed by (seed, sample index): the same for every method, batch size, order and worker."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch


def sample_seed(seed: int, index: int) -> int:
    """A 63-bit generator seed from the first bytes of SHA-256 of ``seed:index``, so that neighbours are unrelated.

    >>> sample_seed(1000, 0), sample_seed(1000, 1)
    (572613065880217957, 7322809238474432791)
    """
    digest = hashlib.sha256(f"{seed}:{index}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def generators(seed: int, indices: Sequence[int]) -> list[torch.Generator]:
    """One CPU generator a sample. diffusers draws each sample's noise from its own generator, also on a GPU."""
    return [torch.Generator().manual_seed(sample_seed(seed, i)) for i in indices]
