"""Prompt lists: plain text, tables, JSON in the layouts of the usual benchmarks, and data sets of the hub.

``classes:N``                 the class indices 0 .. N-1
``FILE.txt``, ``FILE``        one prompt per line
``FILE.csv``, ``FILE.tsv``    with a header; the column is one of :data:`COLUMNS`, or named: ``FILE.csv#column``
``FILE.json``                 strings; objects; id -> object or string (MJHQ-30K's meta_data.json); COCO's captions_*.json
``FILE.jsonl``, ``.ndjson``   one string or object per line
``FILE.parquet``              a table (needs pyarrow)
``hub:OWNER/NAME/FILE``       one such file of a data set on the hub; ``#column`` may follow
``hub:OWNER/NAME``            a data set read with the package ``datasets``; ``@split`` and ``#column`` may follow
``mjhq-30k``, ...             a list of :data:`KNOWN`, fetched from the hub unless a file of that name is here

The order is the file's; markup is kept as it stands; blank entries are dropped; duplicates stay and are counted. Where a list
names what its prompts belong to (the keys of an object, a column of :data:`ID_COLUMNS`), it is kept beside them. A table whose
rows do not fit its header, or whose quotes do not match, is refused with the line, and so is what is no list of these kinds.
COCO's annotations are taken as they come: which 30,000 of them are used changes a FID, so the record holds the list's digest.
"""

from __future__ import annotations

import csv
import hashlib
import importlib
import io
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.errors import UsageError
from harness.hub import PREFIX, explained, fetch_dataset_file, is_offline
from harness.paths import locate
from harness.storage.documents import parse_json
from harness.storage.files import MIB, read_small
from harness.storage.tables import column_names, read_columns

COLUMNS = ("prompt", "caption", "text", "prompts", "captions")  # compared without regard to case
ID_COLUMNS = ("id", "image_id", "image", "file_name", "filename", "file")  # what a prompt belongs to, likewise
KNOWN = {
    "mjhq-30k": "hub:playgroundai/MJHQ-30K/meta_data.json",
    "parti-prompts": "hub:nateraw/parti-prompts/PartiPrompts.tsv",
    "drawbench": "hub:sayakpaul/drawbench",
    # Val-2014 captions of 30,000 images, beside the images (gigabytes); an annotations file from cocodataset.org is smaller.
    "coco-2014": "hub:sayakpaul/coco-30-val-2014",
}
CLASS_NUMBERS = "class numbers are no captions: name the classes in words, one prompt per image"
PLAIN = ("", ".txt", ".text", ".lst", ".list", ".prompts")  # suffixes of plain text
LIMIT = 10_000
SHOWN = 5  # numbers of blank entries in a note
ROW = 1_000_000  # characters of a table's row, all its columns together
MOST_PROMPTS = 2_000_000
PROMPT_BYTES = 96 * MIB  # COCO's captions of 2014 have 67
TABLE_BYTES = 512 * MIB  # of a Parquet list in memory: two million prompts
CLASSES = "classes:"
Entries = Iterator[tuple[int, str, str]]  # line or entry number from 1, the prompt as it stands, its id or nothing


@dataclass(frozen=True)
class PromptList:
    """Prompts in order. ``dropped`` are the numbers of blank entries, from 1; ``ids`` is empty or has an id for each prompt."""

    source: str
    texts: tuple[str, ...]
    dropped: tuple[int, ...] = ()
    ids: tuple[str, ...] = ()

    @property
    def duplicates(self) -> int:
        """How many entries repeat an earlier one."""
        return len(self.texts) - len(set(self.texts))

    @property
    def digest(self) -> str:
        """16 hexadecimal digits over the prompts and their order."""
        return hashlib.sha256(json.dumps(self.texts).encode()).hexdigest()[:16]

    def repeated(self, samples: int) -> tuple[str, ...]:
        """One prompt a sample: the list, started again where it is too short."""
        return tuple(self.texts[i % len(self.texts)] for i in range(samples))

    def record(self) -> dict[str, str | int]:
        """What a run notes about its prompts."""
        return {
            "source": self.source,
            "digest": self.digest,
            "count": len(self.texts),
            "duplicates": self.duplicates,
            "blank_dropped": len(self.dropped),
            **({"blank_at": self._blank_at()} if self.dropped else {}),
        }

    def _blank_at(self) -> str:
        return ", ".join(map(str, self.dropped[:SHOWN])) + (" ..." if len(self.dropped) > SHOWN else "")


def prompt_note(record: Mapping[str, str | int], samples: int) -> str:
    """What became of a list's entries in a run with so many images, by :meth:`PromptList.record`; empty where each made one."""
    count, blank = int(record.get("count", samples)), int(record.get("blank_dropped", 0))
    said = [f"{blank} blank entries were left out (numbers {record.get('blank_at')})"] if blank else []
    if samples < count:
        said.append(f"the first {samples} of {count} prompts were used")
    elif samples > count:
        said.append(f"{count} prompts were used again and again for {samples} images")
    return f"prompts of {record.get('source')}: {'; '.join(said)}" if said else ""


def load_prompts(name: str) -> PromptList:
    """Read a list by name, as the module describes. Raises :class:`UsageError` on whatever is no such list."""
    if name.startswith(CLASSES):
        return PromptList(name, _classes(name))
    if name.startswith(PREFIX):
        return _checked(name, _from_hub(name))
    if name in KNOWN and not locate(name).exists():
        return _checked(name, _from_hub(KNOWN[name]))
    path, column = _split_column(name)
    return _checked(name, _entries(path, column, name))


def checked_prompts(texts: Sequence[str], source: str = "the prompts") -> PromptList:
    """Prompts that are in memory, stripped and checked as a file's are. Raises :class:`UsageError`."""
    if wrong := [text for text in texts if not isinstance(text, str)]:
        raise UsageError(expected=f"texts in {source}", got=repr(wrong[0]), remedy="give strings, classes too")
    return _checked(source, ((number, text, "") for number, text in enumerate(texts, 1)))


def _split_column(name: str) -> tuple[Path, str | None]:
    whole = locate(name)
    if whole.exists() or "#" not in name:
        return whole, None
    file, _, column = name.rpartition("#")
    return locate(file), column


def _classes(name: str) -> tuple[str, ...]:
    count = name.removeprefix(CLASSES)
    if not count.isdecimal() or not 1 <= int(count) <= 1_000_000:
        raise UsageError(expected="classes:N with N of at least 1", got=repr(name), remedy="for ImageNet: classes:1000")
    return tuple(str(i) for i in range(int(count)))


def _checked(name: str, entries: Entries) -> PromptList:
    """Strip, drop blanks, and refuse what no text encoder was made for."""
    kept: list[tuple[str, str]] = []
    blank: list[int] = []
    for number, entry, identity in entries:
        if len(kept) + len(blank) >= MOST_PROMPTS:
            raise UsageError(expected=f"at most {MOST_PROMPTS:,} prompts in {name}", got="more", remedy="shorten the list")
        text = entry.strip()
        if len(text) > LIMIT:
            raise UsageError(
                expected=f"prompts of at most {LIMIT:,} characters in {name}",
                got=f"{len(text):,} characters at entry {number}",
                remedy="shorten that line, or name the right column",
            )
        if "\x00" in text:
            raise UsageError(expected=f"text in {name}", got=f"a zero byte at entry {number}", remedy=_recode("UTF-16"))
        if text:
            kept.append((text, identity))
        else:
            blank.append(number)
    if not kept:
        raise UsageError(expected=f"at least one prompt in {name}", got="none", remedy="add prompts")
    ids = tuple(identity for _, identity in kept)
    return PromptList(name, tuple(text for text, _ in kept), tuple(blank), ids if all(ids) else ())


def _recode(encoding: str) -> str:
    return f"iconv -f {encoding} -t UTF-8 FILE > NEW, and name NEW"


def read_text(path: Path, name: str) -> str:
    """A UTF-8 file, with or without byte-order mark. Raises :class:`UsageError`, which names the likely encoding."""
    try:
        content = read_small(path, PROMPT_BYTES)
    except (OSError, ValueError) as error:  # a name with a zero byte is a ValueError
        raise UsageError(expected=f"a prompt list at {name}", got=str(error), remedy="name an existing file") from error
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise UsageError(expected=f"UTF-8 text in {name}", got="UTF-16", remedy=_recode("UTF-16"))
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise UsageError(
            expected=f"UTF-8 text in {name}",
            got=f"another encoding (byte {content[error.start]:#04x} in line {line})",
            remedy=_recode("ISO-8859-1"),
        ) from error


def _entries(path: Path, column: str | None, name: str) -> Entries:
    """The entries of a local file, by its suffix."""
    suffix = path.suffix.lower()
    if suffix == ".parquet":
        return _parquet(path, column, name)
    text = read_text(path, name)
    readers: dict[str, Callable[[], Entries]] = {
        ".csv": lambda: _table(text, ",", column, name),
        ".tsv": lambda: _table(text, "\t", column, name),
        ".json": lambda: _json(text, column, name),
        ".jsonl": lambda: _json_lines(text, column, name),
        ".ndjson": lambda: _json_lines(text, column, name),
        **dict.fromkeys(PLAIN, lambda: _lines(text, name)),
    }
    if suffix not in readers:
        raise UsageError(
            expected=f"a prompt list in {name}: .txt, {', '.join(key for key in readers if key not in PLAIN)} or .parquet",
            got=f"the suffix {path.suffix}",
            remedy="where it has one prompt in each line, name it .txt",
        )
    return readers[suffix]()


def _lines(text: str, name: str) -> Entries:
    if _is_json(text):
        raise UsageError(
            expected=f"one prompt in each line of {name}",
            got="JSON",
            remedy="name it .json, or .jsonl with a value in each line",
        )
    for number, line in enumerate(io.StringIO(text, newline=None), 1):
        yield number, line, ""


def _is_json(text: str) -> bool:
    """Whether plain text is JSON under another name: its first line, or all of it, is an object or a list."""
    begin = text.lstrip()
    if not begin.startswith(("{", "[")):
        return False
    for part in (begin.splitlines()[0], begin):
        try:
            return isinstance(parse_json(part.encode()), dict | list)
        except ValueError:
            continue
    return False


def _choose(known: list[str], column: str | None, name: str) -> str:
    """The column named, or the first of the usual ones."""
    wanted = COLUMNS if column is None else (column.lower(),)
    for candidate in wanted:
        for actual in known:
            if actual is not None and actual.strip().lower() == candidate:
                return actual
    expected = f"a column {column!r} in {name}" if column else f"a column named {', '.join(COLUMNS)} in {name}"
    raise UsageError(expected=expected, got=", ".join(map(str, known))[:200] or "no columns", remedy="name it: FILE#column")


def _table(text: str, delimiter: str, column: str | None, name: str) -> Entries:
    taken = 0

    def lines() -> Iterator[str]:
        nonlocal taken
        for line in io.StringIO(text, newline=""):
            taken += len(line)
            if taken > ROW:
                raise csv.Error(f"a row of more than {ROW:,} characters")
            yield line

    reader = csv.reader(lines(), delimiter=delimiter, strict=True)
    try:
        header = next(reader, [])
        prompt, identity = _column(header, _choose(header, column, name), name), _id_column(header)
        for row in reader:
            taken = 0
            if not row:
                continue  # a line without anything
            if len(row) != len(header):
                raise csv.Error(f"{len(row)} fields where the header has {len(header)}")
            yield reader.line_num, row[prompt], row[identity].strip() if identity is not None else ""
    except csv.Error as error:
        raise UsageError(
            expected=f"a table in {name} whose rows fit its header and whose quotes match",
            got=f"{error} at line {reader.line_num}",
            remedy="fix that line; a field that holds a delimiter or a quote must be quoted",
        ) from error


def _column(header: list[str], chosen: str, name: str) -> int:
    alike = [cell for cell in header if cell.strip().lower() == chosen.strip().lower()]
    if len(alike) > 1:
        raise UsageError(
            expected=f"one column {chosen!r} in {name}", got=", ".join(alike), remedy="rename or remove all but one of them"
        )
    return header.index(chosen)


def _id_column(header: list[str]) -> int | None:
    """The column that says what each prompt belongs to; None where no column, or more than one of a name, does."""
    lower = [cell.strip().lower() for cell in header]
    return next((lower.index(candidate) for candidate in ID_COLUMNS if lower.count(candidate) == 1), None)


def _identity(entry: Any) -> str:
    """What a JSON object says that it belongs to, or nothing."""
    if not isinstance(entry, Mapping):
        return ""
    lower = {str(key).strip().lower(): value for key, value in entry.items()}
    # COCO's annotations have an id of their own beside that of their image
    order = ("image_id", *ID_COLUMNS) if "image_id" in lower else ID_COLUMNS
    found = next((lower[key] for key in order if isinstance(lower.get(key), str | int)), "")
    return str(found)


def _pick(entry: Any, number: int, column: str | None, name: str) -> str:
    """The prompt of one JSON value."""
    value = entry[_choose(list(entry), column, name)] if isinstance(entry, Mapping) else entry
    if not isinstance(value, str):
        raise UsageError(
            expected=f"a text or an object with one in {name}",
            got=f"{type(value).__name__} at entry {number}",
            remedy="correct that entry, or name the column: FILE#column",
        )
    return value


def _json(text: str, column: str | None, name: str) -> Entries:
    try:
        content = parse_json(text.encode())
    except ValueError as error:
        raise UsageError(expected=f"JSON in {name}", got=str(error), remedy="correct the file at that position") from error
    keys: list[str] = []
    if isinstance(content, Mapping):
        keys = [] if "annotations" in content else [str(key) for key in content]
        content = content["annotations"] if "annotations" in content else list(content.values())
    if not isinstance(content, list):
        raise UsageError(
            expected=f"a list or an object in {name}", got=type(content).__name__, remedy="see harness/config/prompts.py"
        )
    for number, entry in enumerate(content, 1):
        yield number, _pick(entry, number, column, name), keys[number - 1] if keys else _identity(entry)


def _json_lines(text: str, column: str | None, name: str) -> Entries:
    for number, line in enumerate(io.StringIO(text, newline=None), 1):
        if not line.strip():
            yield number, "", ""
            continue
        try:
            entry = parse_json(line.encode())
        except ValueError as error:
            raise UsageError(
                expected=f"JSON in every line of {name}", got=f"{error} at line {number}", remedy="fix that line"
            ) from error
        yield number, _pick(entry, number, column, name), _identity(entry)


def _parquet(path: Path, column: str | None, name: str) -> Entries:
    if not path.exists():
        raise UsageError(expected=f"a prompt list at {name}", got="no such file", remedy="name an existing file")
    try:
        plain, columns, _ = column_names(path)
        chosen, where = _choose(columns, column, name), _id_column(columns)
        identities = "" if where is None or columns[where] not in plain else columns[where]
        table = read_columns(path, {chosen, identities} - {""}, TABLE_BYTES)
    except ImportError as error:
        raise UsageError(
            expected=f"pyarrow, to read {name}", got="not installed", remedy="pip install 'ilf-bench[data]'"
        ) from error
    except UsageError:
        raise
    except Exception as error:  # pyarrow's own exceptions cannot be named where it may be missing
        raise UsageError(expected=f"a parquet table at {name}", got=str(error), remedy="download it again") from error
    ids = table[identities] if identities else [""] * len(table[chosen])
    for number, (entry, identity) in enumerate(zip(table[chosen], ids, strict=True), 1):
        yield number, _pick(entry, number, column, name), str(identity)


def _from_hub(name: str) -> Entries:
    """``hub:OWNER/NAME[@split][#column]`` through datasets, ``hub:OWNER/NAME[@revision]/FILE[#column]`` as a file."""
    body, _, column = name.removeprefix(PREFIX).partition("#")
    parts = body.split("/", 2)
    if len(parts) < 2 or not all(parts):
        raise UsageError(expected="hub:OWNER/NAME or hub:OWNER/NAME/FILE", got=repr(name), remedy="correct the name")
    if len(parts) == 3:
        return _entries(fetch_dataset_file(f"{parts[0]}/{parts[1]}", parts[2]), column or None, name)
    return _dataset(body, column or None, name)


def _dataset(body: str, column: str | None, name: str) -> Entries:
    repository, _, split = body.partition("@")
    try:
        datasets = importlib.import_module("datasets")
    except ImportError as error:
        raise UsageError(
            expected=f"the package datasets, to read {name}",
            got="not installed",
            remedy="pip install 'ilf-bench[data]'; or name one of its files: hub:OWNER/NAME/FILE",
        ) from error
    with explained(repository, "data set"):
        loaded = datasets.load_dataset(repository, **({"download_mode": "reuse_cache_if_exists"} if is_offline() else {}))
    splits = list(loaded)
    chosen = split or (splits[0] if len(splits) == 1 else "")
    if chosen not in splits:
        raise UsageError(expected=f"a split out of {', '.join(splits)}", got=repr(chosen), remedy=f"hub:{repository}@SPLIT")
    key = _choose(list(loaded[chosen].column_names), column, name)
    for number, entry in enumerate(loaded[chosen][key], 1):
        yield number, _pick(entry, number, None, name), ""
