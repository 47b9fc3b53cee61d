"""A folder of real images as a reference: its features are taken once for each content and extractor, and kept."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from harness.errors import ArtifactError
from harness.results import FloatArray
from harness.storage.images import IMAGE_SUFFIXES, stack_images
from harness.storage.records import write_json
from metrics.base import FeatureExtractor
from metrics.reference import Reference, describe_reference, load_reference, write_reference

BATCH = 64


def cache_folder() -> Path:
    """Where features of image folders are kept: ``$XDG_CACHE_HOME/ilf-bench/references``."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ilf-bench" / "references"


def image_files(folder: Path) -> list[Path]:
    """The images of a reference folder. Raises :class:`ArtifactError` on fewer than two."""
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES)
    if len(files) < 2:
        raise ArtifactError(
            expected=f"at least 2 images in {folder}",
            got=str(len(files)),
            remedy="add images, or name a statistics file",
        )
    return files


def folder_reference(folder: Path, extractor: FeatureExtractor, cache: Path | None = None) -> Reference:
    """The features of a folder's images, and beside them in the cache the set's manifest as JSON.

    The key is a digest of the files' contents (not of their names or order) and of the extractor's fingerprint. Raises
    :class:`ArtifactError` on a damaged image, on images of several sizes, and on fewer than two images.
    """
    files = image_files(folder)
    contents = {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
    files.sort(key=lambda path: (contents[path], path.name))
    content = hashlib.sha256("".join(sorted(contents.values())).encode()).hexdigest()[:16]
    key = hashlib.sha256(f"{content}{json.dumps(dict(extractor.fingerprint()), sort_keys=True)}".encode()).hexdigest()[:16]
    kept = (cache or cache_folder()) / f"{key}.npz"
    if not kept.exists():
        data = f"{len(files)} images, content {content}"
        write_reference(kept, _features(files, extractor), describe_reference(extractor, data))
        manifest = {"source": str(folder.resolve()), "n": len(files), "content": content}
        write_json(kept.with_suffix(".json"), manifest | {"extractor": dict(extractor.fingerprint())})
    return load_reference(kept, extractor)


def _features(files: Sequence[Path], extractor: FeatureExtractor) -> FloatArray:
    """float32 [N, d], streaming over files of one size."""
    rows, size = [], None
    for start in range(0, len(files), BATCH):
        images = stack_images(files[start : start + BATCH], size, "resize the references as their benchmark prescribes")
        size = images.shape[1:]
        rows.append(extractor(torch.from_numpy(images)).float().cpu().numpy())
    return np.concatenate(rows)
