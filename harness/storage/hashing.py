"""SHA-256 of whole files, remembered: weights of many gigabytes are read once, and not again before they change.

What is known of a file is kept in the user's cache by device and inode, and holds for the size and the times of its last change
that it had. A file that changed within the last seconds is not remembered: it could change again without another time.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Iterable
from pathlib import Path

from harness.errors import ArtifactError
from harness.paths import cache_folder
from harness.storage.documents import parse_json
from harness.storage.files import file_digest, read_small, write_bytes
from harness.storage.locations import is_local

SETTLED_NS = 2 * 10**9  # how long ago a file must have changed: file systems keep times that coarse
NOTES = {".md", ".png", ".jpg", ".gitattributes"}  # what decides nothing: cards and their pictures
TRAINING = "training"  # how the name of a file begins that says how long a training took


def content_digest(path: Path) -> str:
    """SHA-256 of a file's whole content. Raises :class:`ArtifactError` where it cannot be read."""
    try:
        if not is_local(path):
            return file_digest(path)
        found = os.stat(path)
        facts = {"size": found.st_size, "mtime_ns": found.st_mtime_ns, "ctime_ns": found.st_ctime_ns}
        memory = cache_folder() / "digests" / f"{found.st_dev}-{found.st_ino}.json"
        known = _remembered(memory)
        if {name: known.get(name) for name in facts} == facts and isinstance(known.get("sha256"), str):
            return str(known["sha256"])
        digest = file_digest(path)
    except OSError as error:
        raise ArtifactError(expected=f"a readable file {path}", got=str(error), remedy="restore it") from error
    if time.time_ns() - max(found.st_mtime_ns, found.st_ctime_ns) > SETTLED_NS:
        _remember(memory, facts | {"sha256": digest})
    return digest


def _remembered(memory: Path) -> dict[str, object]:
    try:
        content = parse_json(read_small(memory, 4096))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _remember(memory: Path, content: dict[str, object]) -> None:
    try:
        write_bytes(memory, json.dumps(content).encode())
    except OSError:  # a cache that cannot be written costs time, and nothing else
        return


def contents_digest(paths: Iterable[Path]) -> str:
    """16 hexadecimal digits over files and all files in folders, by their names inside these; empty where there are none."""
    total, found = hashlib.sha256(), False
    for path in sorted(set(paths)):
        for file in deciding_files(path):
            name = file.relative_to(path.parent).as_posix()
            total.update(f"{name}:{content_digest(file)}:".encode())
            found = True
    return total.hexdigest()[:16] if found else ""


def deciding_files(path: Path) -> list[Path]:
    """A file itself, or everything in a folder but what is hidden, a note, or the record of how long a training took."""
    if not path.is_dir():
        return [path]
    inside = [file for file in path.rglob("*") if file.is_file()]
    kept = [file for file in inside if not any(part.startswith(".") for part in file.relative_to(path).parts)]
    return sorted(file for file in kept if file.suffix.lower() not in NOTES and not _is_training(file))


def _is_training(file: Path) -> bool:
    return file.name.startswith(TRAINING) and file.suffix == ".json"
