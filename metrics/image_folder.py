"""Real images as a reference: their features are taken once for each content and extractor, and kept."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from harness.errors import ArtifactError, UsageError
from harness.paths import cache_folder
from harness.storage.arrays import array_names, read_arrays
from harness.storage.files import file_digest
from harness.storage.listing import list_images
from harness.storage.reading import read_ahead
from harness.storage.records import write_json
from metrics.base import FeatureExtractor
from metrics.reference import Reference, describe_reference, load_reference, read_fingerprint, write_reference

BATCH = 64


def image_files(folder: Path) -> list[Path]:
    """The images of a reference folder. Raises :class:`ArtifactError` on fewer than two."""
    try:
        files = list(list_images(folder).files)
    except UsageError as error:
        raise ArtifactError(expected=f"at least 2 images in {folder}", got=error.got, remedy=error.remedy) from error
    if len(files) < 2:
        raise ArtifactError(
            expected=f"at least 2 images in {folder}",
            got=str(len(files)),
            remedy="add images, or name a statistics file",
        )
    return files


def folder_images(folder: Path) -> ImageSet:
    """A folder's images by a digest of the files' contents, not of their names or order.

    Raises :class:`ArtifactError` on fewer than two images; taking features raises it on a damaged image and on several sizes.
    """
    files = image_files(folder)
    contents = {path: file_digest(path) for path in files}
    files.sort(key=lambda path: (contents[path], path.name))
    content = hashlib.sha256("".join(sorted(contents.values())).encode()).hexdigest()[:16]
    return ImageSet(folder, len(files), content, f"{len(files)} images, content {content}", lambda: _read(files))


def stored_reference(path: Path, extractor: FeatureExtractor, cache: Path | None = None) -> Reference | None:
    """A file of features that also holds the images they were taken from, seen by ``extractor``; None where it cannot be.

    The features in the file serve their own extractor, and are read by :func:`load_reference`; ``images`` uint8 [M, 3, H, W]
    serve every other.
    """
    try:
        known = read_fingerprint(path)
        if "images" not in array_names(path) or known["extractor"] == extractor.fingerprint()["extractor"]:
            return None
        images = torch.from_numpy(read_arrays(path, ("images",))["images"])
    except (ValueError, KeyError):
        return None  # damaged, or another kind of file: whoever reads its features says so
    if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] != 3:
        raise ArtifactError(
            expected=f"images uint8 [M, 3, H, W] in {path}",
            got=f"{images.dtype} of shape {list(images.shape)}",
            remedy="write the reference again",
        )
    content = hashlib.sha256(images.numpy().tobytes()).hexdigest()[:16]
    return ImageSet(path, len(images), content, known["data"], lambda: torch.split(images, BATCH)).features(extractor, cache)


@dataclass(frozen=True)
class ImageSet:
    """Real images by the digest of their ``content``; ``data`` is what a reference's fingerprint calls them.

    ``batches`` reads them, uint8 [B, 3, H, W] at a time.
    """

    source: Path
    n: int
    content: str
    data: str
    batches: Callable[[], Iterable[torch.Tensor]]

    def features(self, extractor: FeatureExtractor, cache: Path | None = None) -> Reference:
        """Their features: from the cache, or taken now and kept there, with the set's manifest as JSON.

        The key is made of the content and of the extractor's fingerprint.
        """
        key = hashlib.sha256(f"{self.content}{json.dumps(dict(extractor.fingerprint()), sort_keys=True)}".encode())
        kept = (cache or cache_folder() / "references") / f"{key.hexdigest()[:16]}.npz"
        if not kept.exists():
            rows = np.concatenate([extractor(images).float().cpu().numpy() for images in self.batches()])
            write_reference(kept, rows, describe_reference(extractor, self.data))
            manifest = {"source": str(self.source.resolve()), "n": self.n, "content": self.content}
            write_json(kept.with_suffix(".json"), manifest | {"extractor": dict(extractor.fingerprint())})
        return load_reference(kept, extractor)


def _read(files: Sequence[Path]) -> Iterator[torch.Tensor]:
    """uint8 [B, 3, H, W], streaming over files of one size."""
    return map(torch.from_numpy, read_ahead(files, BATCH, "resize the references as their benchmark prescribes"))
