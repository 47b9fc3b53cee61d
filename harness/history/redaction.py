"""A run without what its maker does not want to publish: prompts, or the command line. A copy; the run itself stays as it is."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from harness.errors import UsageError
from harness.storage.files import file_digest
from harness.storage.layout import Layout, SampleFolder
from harness.storage.records import read_json, record_files, write_json

REDACTED = ("prompts", "command")
BLANK = ""


@contextmanager
def redacted(run: Path, without: Collection[str], images: bool) -> Iterator[Path]:
    """A copy of a run's record without ``without``, out of :data:`REDACTED`; gone after the block.

    Without prompts, manifests and receipts keep indices, files and digests. Images would show what the prompts were.
    """
    if unknown := [name for name in without if name not in REDACTED]:
        raise UsageError(expected=f"out of {', '.join(REDACTED)}", got=repr(unknown[0]), remedy="bundle --without prompts")
    if images and "prompts" in without:
        raise UsageError(expected="images or a bundle without prompts", got="both", remedy="leave one of them out")
    with tempfile.TemporaryDirectory() as name:
        copy = Path(name) / "run"
        for path in record_files(run):
            if path.suffix in (".json", ".npy") or images:
                (target := copy / path.relative_to(run)).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, target)
        if "prompts" in without:
            for folder in Layout(copy).sample_folders():
                _blank_prompts(folder)
        if "command" in without:
            environment = Layout(copy).environment
            write_json(environment, read_json(environment) | {"command": BLANK})
        yield copy


def _blank_prompts(folder: SampleFolder) -> None:
    """The receipts first, because the manifest has their digests."""
    receipts = sorted(path for path in folder.path.glob("*.json") if path != folder.manifest)
    for receipt in receipts:
        write_json(receipt, _without_prompts(read_json(receipt)))
    manifest = _without_prompts(read_json(folder.manifest))
    known = {path.name: file_digest(path) for path in receipts}
    write_json(folder.manifest, manifest | {"receipts": {name: known[name] for name in manifest["receipts"] if name in known}})


def _without_prompts(content: dict[str, Any]) -> dict[str, Any]:
    return content | {"samples": [sample | {"prompt": BLANK} for sample in content["samples"]]}
