"""Sample sets: PNG files and a manifest, generated in chunks of fixed sample indices, so that interrupted runs resume exactly."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from harness.errors import ArtifactError
from harness.storage.files import digest
from harness.storage.images import Pixels, decode_image
from harness.storage.layout import SampleFolder
from harness.storage.records import read_json, write_json
from harness.storage.writing import Writer

Generate = Callable[[Sequence[str], Sequence[int]], Pixels]  # prompts and their sample indices to uint8 [B, 3, H, W]


def chunks(samples: int, size: int, within: range | None = None) -> Iterator[range]:
    """The index ranges 0 .. samples-1, ``size`` at a time; of these the ones that begin ``within`` a range."""
    starts = range(0, samples, size)
    return (range(i, min(i + size, samples)) for i in starts if within is None or i in within)


@dataclass(frozen=True)
class Receipt:
    """What one chunk wrote: each image's digest by its index, and the block evaluations of all of them."""

    digests: dict[int, str]
    block_evaluations: float


@dataclass(frozen=True)
class SampleSet:
    """The images of one method in one folder, indices 0 .. n-1."""

    folder: Path
    prompts: tuple[str, ...]
    chunk: int

    def image_path(self, index: int) -> Path:
        """Where sample ``index`` lies."""
        return SampleFolder(self.folder).image(index)

    @property
    def manifest(self) -> Path:
        """Written when every image is there."""
        return SampleFolder(self.folder).manifest

    def chunks(self) -> Iterator[range]:
        """Index ranges that are generated together, whatever was there before."""
        return chunks(len(self.prompts), self.chunk)

    def _receipt(self, start: int) -> Path:
        return SampleFolder(self.folder).receipt(start)

    def _read_receipt(self, indices: range) -> Receipt:
        path = self._receipt(indices.start)
        content = read_json(path)
        try:
            digests = {int(entry["index"]): str(entry["sha256"]) for entry in content["samples"]}
            receipt = Receipt(digests, float(content["block_evaluations"]))
        except (KeyError, TypeError, ValueError) as error:
            raise ArtifactError(expected=f"a receipt at {path}", got=repr(error), remedy="delete it and run again") from error
        if list(receipt.digests) != list(indices):
            raise ArtifactError(
                expected=f"a receipt of samples {indices.start} to {indices.stop - 1} at {path}",
                got="other samples",
                remedy="delete it and run again",
            )
        return receipt

    def is_done(self, indices: range) -> bool:
        """Whether the chunk's receipt is there and every file still has the digest that the receipt names."""
        if not self._receipt(indices.start).exists():
            return False
        try:
            found = self._read_receipt(indices).digests
            return all(digest(self.image_path(i).read_bytes()) == found[i] for i in indices)
        except (FileNotFoundError, ArtifactError):
            return False

    def generate(self, indices: range, generate: Generate, rows: Callable[[], float], batch: int = 0) -> None:
        """:meth:`begin`, and wait until it is on disk."""
        writer = Writer()
        try:
            self.begin(indices, generate, rows, writer, batch).result()
        finally:
            writer.close()

    def begin(
        self, indices: range, generate: Generate, rows: Callable[[], float], writer: Writer, batch: int = 0
    ) -> Future[None]:
        """Make one chunk, ``batch`` images at a time where that is fewer than the chunk; ``writer`` stores it meanwhile.

        What is returned is done when the chunk is on disk, its receipt last. ``rows`` reads the block counter, whose increase
        goes into the receipt; so does a smaller batch.
        """
        before, size = rows(), min(batch or len(indices), len(indices))
        chunk = writer.chunk()
        try:
            for part in (indices[i : i + size] for i in range(0, len(indices), size)):
                images = generate([self.prompts[i] for i in part], part)
                chunk.add(images, part, self.image_path)
        except BaseException:
            chunk.abandon()
            raise
        counted = {"block_evaluations": rows() - before} | ({"batch": size} if size < len(indices) else {})

        def receipt(digests: dict[int, str]) -> None:
            entries = [
                {"index": i, "prompt": self.prompts[i], "file": self.image_path(i).name, "sha256": digests[i]} for i in indices
            ]
            write_json(self._receipt(indices.start), {"samples": entries} | counted)

        return chunk.close(receipt)

    def finish(self, method: str) -> float:
        """Write the manifest from all receipts; returns the measured block evaluations per image."""
        files = [self._receipt(indices.start) for indices in self.chunks()]
        receipts = [read_json(file) for file in files]
        digests = {file.name: digest(file.read_bytes()) for file in files}
        samples = [entry for receipt in receipts for entry in receipt["samples"]]
        write_json(self.manifest, {"method": method, "samples": samples, "receipts": digests})
        return float(sum(receipt["block_evaluations"] for receipt in receipts) / len(samples))

    def digests(self, indices: range) -> list[str]:
        """What the receipts say of images ``indices``. Raises :class:`ArtifactError` where a receipt is missing or damaged."""
        found: dict[int, str] = {}
        for start in range(indices.start // self.chunk * self.chunk, indices.stop, self.chunk):
            found |= self._read_receipt(range(start, min(start + self.chunk, len(self.prompts)))).digests
        return [found[i] for i in indices]

    def files(self, indices: range) -> list[tuple[Path, str]]:
        """The image files, each with the digest that its content must have. Raises as :meth:`digests` does."""
        return [(self.image_path(i), digest) for i, digest in zip(indices, self.digests(indices), strict=True)]

    def load(self, indices: range) -> Pixels:
        """uint8 [B, 3, H, W], each image as it was written. Raises :class:`ArtifactError` on another."""
        return np.stack([decode_image(*file) for file in self.files(indices)])
