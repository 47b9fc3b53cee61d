"""Which prompt belongs to which image of a folder: by id where the list has ids, else by position, and never by accident."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from harness.config.prompts import PromptList
from harness.errors import UsageError
from harness.storage.listing import Listing, natural

SHOWN = 3  # names in a message


@dataclass(frozen=True)
class Paired:
    """A prompt for each image, and in words how they were paired."""

    texts: tuple[str, ...]
    how: str


def pair_prompts(listing: Listing, prompts: PromptList) -> Paired:
    """A prompt for each file of ``listing``.

    Where the list names what its prompts belong to, and files bear those names, by that: the file's name without its suffix,
    or, as COCO's files are named, the number at its end. Raises :class:`UsageError` where only some files are named, where the
    numbers of files and prompts differ, and where blank entries leave it open which prompt belongs to which file.
    """
    by_id = _by_id(listing.names, prompts)
    if by_id is not None:
        return by_id
    if prompts.dropped:
        raise UsageError(
            expected=f"a prompt for every image, line by line, in {prompts.source}",
            got=f"blank entries at {_some([str(number) for number in prompts.dropped])}",
            remedy="remove them, or name each image in a column 'file_name'",
        )
    if len(prompts.texts) != len(listing.files):
        raise UsageError(
            expected=f"{len(listing.files)} prompts, one per image",
            got=f"{len(prompts.texts)} in {prompts.source}; {listing.note or 'no file was left out'}",
            remedy=f"edit {prompts.source}, or name each image in a column 'file_name'",
        )
    order = (
        "natural order, 2 before 10, which a plain sort of the names would not give" if listing.is_sorted_otherwise else "order"
    )
    return Paired(prompts.texts, f"paired by position: prompts line by line, files in {order}")


def _by_id(names: Sequence[str], prompts: PromptList) -> Paired | None:
    """None where the list has no ids, or no file bears one."""
    if not prompts.ids:
        return None
    texts: dict[str, str] = {}
    repeated = 0
    for identity, text in zip(prompts.ids, prompts.texts, strict=True):
        repeated += _plain(identity) in texts
        texts.setdefault(_plain(identity), text)
    found = [next((key for key in _keys(name) if key in texts), None) for name in names]
    missing = [name for name, key in zip(names, found, strict=True) if key is None]
    if len(missing) == len(names):
        return None
    if missing:
        raise UsageError(
            expected=f"each image named after an id of {prompts.source}",
            got=f"{len(names) - len(missing)} of {len(names)} are, not {_some(missing)}",
            remedy="rename those files, or remove the ids from the list to pair by position",
        )
    keys = [key for key in found if key is not None]
    _check_single(names, keys, prompts)
    notes = [f"; of {repeated} further prompts with the same id none was used" if repeated else ""]
    unused = sorted(texts.keys() - set(keys), key=natural)
    notes.append(f"; {len(unused)} of {len(texts)} ids have no image: {_some(unused)}" if unused else "")
    shared = len(keys) - len(set(keys))
    notes.append(f"; {shared} images share the id of another" if shared else "")
    return Paired(tuple(texts[key] for key in keys), f"paired by the ids in {prompts.source}{''.join(notes)}")


def _check_single(names: Sequence[str], keys: Sequence[str], prompts: PromptList) -> None:
    """Raise :class:`UsageError` where the numbers at the end of two names are one id: such a number counts something else."""
    by_number = Counter(key for name, key in zip(names, keys, strict=True) if key not in _names(name))
    twice = next((key for key, count in by_number.items() if count > 1), None)
    if twice is not None:
        alike = [name for name, key in zip(names, keys, strict=True) if key == twice]
        raise UsageError(
            expected=f"an id of {prompts.source} in each file's name",
            got=f"{_some(alike)}, which all end on {twice}",
            remedy="name each image after its id, or list the files' names in a column 'file_name'",
        )


def _keys(name: str) -> list[str]:
    """What a file may be called in a list: its path, its name, and the number at its end."""
    number = re.search(r"\d+$", PurePosixPath(name).stem)
    return [*_names(name), *([_plain(number.group())] if number else [])]


def _names(name: str) -> list[str]:
    return [_plain(name), _plain(PurePosixPath(name).name)]


def _plain(identity: str) -> str:
    """An id without an image's suffix and without leading zeros."""
    text = re.sub(r"\.(png|jpe?g|webp|bmp)$", "", identity.strip(), flags=re.IGNORECASE)
    return text.lstrip("0") or "0" if text.isdecimal() else text


def _some(names: Sequence[str]) -> str:
    more = len(names) - SHOWN
    return ", ".join(names[:SHOWN]) + (f" and {more} more" if more > 0 else "")


def are_class_numbers(texts: Sequence[str]) -> bool:
    """Whether prompts are bare class numbers, which are no captions: a text encoder reads ``207`` as a number."""
    return all(text.strip().isdecimal() for text in texts)
