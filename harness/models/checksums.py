"""Digests beside weights: a folder's SHA256SUMS, in the format of ``sha256sum``, checked whenever the folder is loaded."""

from __future__ import annotations

import hashlib
from pathlib import Path

from harness.errors import ArtifactError
from harness.storage.files import write_bytes
from harness.storage.locations import inside

SUMS = "SHA256SUMS"
WEIGHTS = (".safetensors", ".bin")
CONFIG = "config.json"


def file_digest(path: Path) -> str:
    """SHA-256 of a file of any size."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_sums(folder: Path) -> None:
    """Seal the weights and the configuration that lie in ``folder`` itself, as ``sha256sum -c SHA256SUMS`` reads it."""
    files = sorted(path for path in folder.iterdir() if path.suffix in WEIGHTS or path.name == CONFIG)
    write_bytes(folder / SUMS, "".join(f"{file_digest(path)}  {path.name}\n" for path in files).encode())


def check_sums(folder: Path) -> None:
    """Raise :class:`ArtifactError` where a sealed file is missing or altered; a folder without SHA256SUMS is not checked."""
    sums = folder / SUMS
    if not sums.exists():
        return
    for line in sums.read_bytes().decode("utf-8", "replace").splitlines():
        expected, _, name = line.partition("  ")
        path = inside(folder, name)
        found = file_digest(path) if path.is_file() else "no such file"
        if found != expected:
            raise ArtifactError(
                expected=f"{path} as {SUMS} beside it says",
                got=found[:16],
                remedy=f"restore the folder; where the change was meant, write its {SUMS} anew",
            )
