"""A run without what its maker does not want to publish: prompts, the command line, plugins' sources, absolute paths.

A copy is changed.
"""

from __future__ import annotations

import json
import re
import shutil
import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from harness.errors import UsageError
from harness.history.selection import packed_files
from harness.storage.checks import check_manifest
from harness.storage.files import file_digest
from harness.storage.layout import Layout
from harness.storage.records import SEAL, read_json, write_json

REDACTED = ("prompts", "command", "plugins", "paths")
ABSOLUTE = re.compile(r"(?<![\w.:/~])(?:file://)?~?/(?:[^\s/:;,'\"()\[\]<>]+/)*([^\s/:;,'\"()\[\]<>]+)")
BLANK = ""
NEGATIVE = "negative_prompt"  # the field of a specification


@contextmanager
def redacted(run: Path, without: Collection[str], images: bool) -> Iterator[Path]:
    """A copy of a run's record without ``without``, out of :data:`REDACTED`; gone after the block.

    Without paths, an absolute path anywhere in the records is its last part. Without prompts, manifests and receipts keep
    indices, files and digests. Images would show what the prompts were.
    """
    if unknown := [name for name in without if name not in REDACTED]:
        raise UsageError(expected=f"out of {', '.join(REDACTED)}", got=repr(unknown[0]), remedy="bundle --without prompts")
    if images and "prompts" in without:
        raise UsageError(expected="images or a bundle without prompts", got="both", remedy="leave one of them out")
    with tempfile.TemporaryDirectory() as name:
        copy = Path(name) / "run"
        for inside, path in packed_files(run, images).items():
            (target := copy / inside).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
        if "prompts" in without:
            _blank_prompts(Layout(copy))
        if "command" in without:
            _set(Layout(copy).environment, command=BLANK)
        if "plugins" in without:
            for folder in Layout(copy).plugins():
                shutil.rmtree(folder)
        if "paths" in without:
            _shorten_paths(Layout(copy), copy)
        yield copy


def without_paths(content: Any) -> Any:
    """JSON in which every absolute path is its last part.

    >>> without_paths({"pipeline": "/home/me/models/dit", "notes": ["prompts of ~/lists/p.txt: 3 of 4", "s/image, hub:A/B"]})
    {'pipeline': 'dit', 'notes': ['prompts of p.txt: 3 of 4', 's/image, hub:A/B']}
    """
    if isinstance(content, str):
        return ABSOLUTE.sub(r"\1", content)
    if isinstance(content, dict):
        return {without_paths(key): without_paths(value) for key, value in content.items()}
    return [without_paths(item) for item in content] if isinstance(content, list) else content


def _shorten_paths(run: Layout, folder: Path) -> None:
    """In every record but those of the images, which name files beside them and hold prompts."""
    for label in read_json(run.spec)["method_labels"]:
        if without_paths(label) != label:
            raise UsageError(
                expected="labels of methods without a path",
                got=repr(label),
                remedy="give the method a label that names no folder",
            )
    for path in folder.rglob("*.json"):
        if path.relative_to(folder).parts[0] == "samples":
            continue
        content = json.loads(path.read_text(encoding="utf-8"))
        if (shortened := without_paths(content)) != content:
            write_json(path, {name: value for name, value in shortened.items() if name != SEAL})


def _blank_prompts(run: Layout) -> None:
    """The receipts first, of unfinished methods too, because manifests have their digests.

    A negative prompt is one, and was probably given on the command line.
    """
    if read_json(run.spec).get(NEGATIVE):
        _set(run.spec, **{NEGATIVE: BLANK})
        _set(run.environment, command=BLANK)
    for receipt in run.receipts():
        write_json(receipt, _without_prompts(receipt))
    for folder in run.sample_folders():
        manifest = _without_prompts(folder.manifest)
        known = {path.name: file_digest(path) for path in run.receipts() if path.parent == folder.path}
        receipts = {name: known[name] for name in manifest.get("receipts", {}) if name in known}
        write_json(folder.manifest, manifest | {"receipts": receipts})


def _set(path: Path, **fields: str) -> None:
    write_json(path, read_json(path) | fields)


def _without_prompts(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = read_json(path)
    check_manifest(content, path)
    kept = [{name: sample[name] for name in ("index", "file", "sha256")} for sample in content["samples"]]
    return content | {"samples": [sample | {"prompt": BLANK} for sample in kept]}
