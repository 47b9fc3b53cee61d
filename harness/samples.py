"""Sample sets: PNG files and a manifest, generated in chunks of fixed sample indices so that a cut run resumes exactly."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from harness.images import decode_image, encode_png
from harness.records import read_json, write_bytes, write_json

Generate = Callable[[Sequence[str], Sequence[int]], torch.Tensor]


@dataclass(frozen=True)
class SampleSet:
    """The images of one method in one folder, indices 0 .. n-1."""

    folder: Path
    prompts: tuple[str, ...]
    chunk: int

    def chunks(self) -> list[range]:
        """Index ranges that are generated together, whatever was there before."""
        return [range(i, min(i + self.chunk, len(self.prompts))) for i in range(0, len(self.prompts), self.chunk)]

    def image_path(self, index: int) -> Path:
        """Where sample ``index`` lies."""
        return self.folder / f"{index:06d}.png"

    def _receipt(self, indices: range) -> Path:
        return self.folder / f"chunk-{indices.start:06d}.json"

    def is_done(self, indices: range) -> bool:
        """Whether the chunk's receipt is there and every file still has the digest that the receipt names."""
        if not self._receipt(indices).exists():
            return False
        files = read_json(self._receipt(indices))["samples"]
        paths = [self.folder / entry["file"] for entry in files]
        return all(p.exists() and _digest(p.read_bytes()) == e["sha256"] for p, e in zip(paths, files, strict=True))

    def generate(self, indices: range, generate: Generate, rows: Callable[[], float]) -> None:
        """Make and store one chunk. ``rows`` reads the block counter, whose increase goes into the receipt."""
        prompts, before = [self.prompts[i] for i in indices], rows()
        images = generate(prompts, indices)
        entries = []
        for i, prompt, image in zip(indices, prompts, images, strict=True):
            content = encode_png(image)
            write_bytes(self.image_path(i), content)
            entries.append({"index": i, "prompt": prompt, "file": self.image_path(i).name, "sha256": _digest(content)})
        write_json(self._receipt(indices), {"samples": entries, "block_evaluations": rows() - before})

    def finish(self, method: str) -> float:
        """Write the manifest from all receipts; returns the measured block evaluations an image."""
        receipts: list[dict[str, Any]] = [read_json(self._receipt(indices)) for indices in self.chunks()]
        samples = [entry for receipt in receipts for entry in receipt["samples"]]
        write_json(self.folder / "manifest.json", {"method": method, "samples": samples})
        return float(sum(receipt["block_evaluations"] for receipt in receipts) / len(samples))

    def is_finished(self) -> bool:
        """Whether the manifest is written."""
        return (self.folder / "manifest.json").exists()

    def digest(self) -> str:
        """Identifies the finished set: 16 hexadecimal digits over its manifest, which holds every image's digest."""
        return _digest((self.folder / "manifest.json").read_bytes())[:16] if self.is_finished() else ""

    def load(self, indices: Sequence[int]) -> torch.Tensor:
        """uint8 [B, 3, H, W]."""
        return torch.stack([decode_image(self.image_path(i)) for i in indices])

    def batches(self, size: int) -> Iterator[range]:
        """All indices in order, ``size`` at a time."""
        return (range(i, min(i + size, len(self.prompts))) for i in range(0, len(self.prompts), size))


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
