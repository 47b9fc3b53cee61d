"""Which files of a folder are its images: one rule for every folder of images that a user names.

Images are the files with a suffix of :data:`harness.storage.images.IMAGE_SUFFIXES` in the folder and its sub-folders, in natural
order (``2.png`` before ``10.png``). Left out, counted and named: hidden files and folders (a resource fork is one: ``._a.png``),
folders of thumbnails, folders that are named like images, links to folders, and files with another suffix.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from harness.errors import UsageError
from harness.storage.images import IMAGE_SUFFIXES

THUMBNAILS = {"thumbs", "thumbnails", "@eadir", "__macosx"}  # compared without regard to case
NAMED = 3  # files that a message names for each reason
Natural = tuple[tuple[int, int, str], ...]


@dataclass(frozen=True)
class Listing:
    """The images of ``folder`` in natural order, and what else lies there: (path within the folder, why it is left out)."""

    folder: Path
    files: tuple[Path, ...]
    left_out: tuple[tuple[str, str], ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """The files' paths within the folder."""
        return tuple(path.relative_to(self.folder).as_posix() for path in self.files)

    @property
    def is_sorted_otherwise(self) -> bool:
        """Whether a plain sort by characters would give another order (``10.png`` before ``2.png``)."""
        return list(self.names) != sorted(self.names)

    @property
    def note(self) -> str:
        """What was left out, with some names for each reason; empty where nothing was."""
        counts = Counter(why for _, why in self.left_out)
        parts = []
        for why, count in counts.items():
            names = [name for name, reason in self.left_out if reason == why][:NAMED]
            more = f" and {count - NAMED} more" if count > NAMED else ""
            parts.append(f"{', '.join(names)}{more} ({why})")
        return f"left out of {self.folder}: {'; '.join(parts)}" if parts else ""


def list_images(folder: Path) -> Listing:
    """The images of a folder. Raises :class:`UsageError` where it is none, holds none or cannot be read."""
    if not folder.is_dir():
        raise UsageError(expected="a folder of images", got=str(folder), remedy="name a folder")
    images: list[Path] = []
    others: list[tuple[Path, str]] = []
    try:
        for path, why in _walk(folder):
            if why:
                others.append((path, why))
            else:
                images.append(path)
    except OSError as error:
        raise UsageError(expected=f"a readable folder {folder}", got=str(error), remedy="check its permissions") from error
    left_out = tuple((path.relative_to(folder).as_posix(), why) for path, why in others)
    files = sorted(images, key=lambda path: natural(path.relative_to(folder).as_posix()))
    found = Listing(folder, tuple(files), left_out)
    if not files:
        got = f"none; {found.note}" if found.note else "none"
        suffixes = ", ".join(sorted(IMAGE_SUFFIXES))
        raise UsageError(expected=f"images ({suffixes}) in {folder}", got=got, remedy="name a folder of images")
    return found


def _walk(folder: Path) -> Iterator[tuple[Path, str]]:
    """Every entry with why it is left out, or nothing where it is an image; sub-folders are walked, links to folders are not."""
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        path = folder / entry.name
        if entry.name.startswith("."):
            yield path, "hidden"
        elif entry.is_dir():
            why = _why_not_folder(entry)
            yield from [(path, why)] if why else _walk(path)
        elif path.suffix.lower() not in IMAGE_SUFFIXES:
            yield path, "another suffix than an image's"
        elif not entry.is_file():
            yield path, "no regular file"
        else:
            yield path, ""


def _why_not_folder(entry: os.DirEntry[str]) -> str:
    if entry.is_symlink():
        return "a link to a folder"
    if entry.name.lower() in THUMBNAILS:
        return "a folder of thumbnails"
    return "a folder named like an image" if Path(entry.name).suffix.lower() in IMAGE_SUFFIXES else ""


def natural(name: str) -> Natural:
    """A key that orders numbers in names by their value: ``2.png`` before ``10.png``."""
    parts = re.findall(r"\d+|\D+", name)
    return tuple((0, int(part), "") if part.isdecimal() and part.isascii() else (1, 0, part.lower()) for part in parts)
