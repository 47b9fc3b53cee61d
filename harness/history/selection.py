"""Which files of a run's folder go into a bundle: those of its record, and nothing that somebody else put among them."""

from __future__ import annotations

from pathlib import Path

from harness.errors import ArtifactError
from harness.storage.layout import members
from harness.storage.records import record_files

IMAGES = {".png", ".jpg", ".jpeg", ".webp", ".bmp"}


def packed_files(run: Path, images: bool) -> dict[str, Path]:
    """The files to pack by their names inside the run, sorted; images where they are asked for.

    Raises :class:`ArtifactError` on a file with a second name: as a link could, that name may lead to any file of the reader's.
    """
    found = {path.relative_to(run).as_posix(): path for path in record_files(run)}
    kept = members(found)
    files = {name: path for name, path in found.items() if name in kept and (images or path.suffix not in IMAGES)}
    for path in files.values():
        if getattr(path.stat(), "st_nlink", 1) > 1:
            raise ArtifactError(
                expected=f"files of its own in {run}",
                got=f"a hard link: {path}",
                remedy="copy the folder (cp -r) and bundle the copy",
            )
    return files
