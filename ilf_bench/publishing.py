"""What ``ilf-bench push`` uploads: folders made for it, from which everything private is left out first."""

from __future__ import annotations

import csv
import os
import re
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from harness.errors import ArtifactError, UsageError
from harness.execution.identity import FILES
from harness.history.bundle import write_bundle
from harness.history.packing import run_id
from harness.history.redaction import redacted
from harness.models.checksums import write_sums
from harness.storage.files import file_digest
from harness.storage.hashing import contents_digest
from harness.storage.layout import Layout
from harness.storage.records import Run, read_json, read_run

PRIVATE = ("command", "plugins", "paths")  # left out of whatever is published
CARD = "README.md"
WEIGHTS = "diffusion_pytorch_model.safetensors"
TEXTS = {".json", ".html", ".md", ".csv", ".txt", ".yaml", ""}


@dataclass(frozen=True)
class Upload:
    """A folder that becomes a repository. ``kind`` is dataset, space or model; ``tag`` says of what it is, in its card."""

    folder: Path
    repository: str
    kind: str
    tag: str

    def files(self) -> dict[str, int]:
        """Bytes of each file, by its name in the repository."""
        found = sorted(path for path in self.folder.rglob("*") if path.is_file())
        return {path.relative_to(self.folder).as_posix(): path.stat().st_size for path in found}


@contextmanager
def run_uploads(run: Path, repository: str, space: str | None, licence: str) -> Iterator[list[Upload]]:
    """The data set of a run, and its Space where one is named; the folders are gone after the block.

    Both hold the same report and the same images, beside each other as in the run's folder, because the gallery refers to
    them. Raises :class:`UsageError` where something private is found in what would be published.
    """
    from reports.render.build import build_report
    from reports.render.card import dataset_card, space_card

    with TemporaryDirectory() as name, redacted(run, PRIVATE, images=True) as copy:
        content, data = read_run(copy), Path(name) / "dataset"
        tag = f"ilf-bench-run-{run_id(content)[:16]}"
        build_report(copy)
        _copy_shown(copy, data)
        digest = write_bundle(copy, data / "bundle.zip")
        _write_metadata(content, copy, data)
        (data / CARD).write_text(dataset_card(content, tag, licence, digest), encoding="utf-8")
        uploads = [Upload(data, repository, "dataset", tag)]
        if space is not None:
            shown = Path(name) / "space"
            _copy_shown(copy, shown)
            (shown / CARD).write_text(space_card(content, tag, licence), encoding="utf-8")
            uploads.append(Upload(shown, space, "space", tag))
        _refuse_private([copy, data], run)
        yield uploads


def _copy_shown(copy: Path, target: Path) -> None:
    """The report and the images that its gallery shows, without the receipts."""
    shutil.copytree(Layout(copy).report, Layout(target).report)
    for folder in Layout(copy).sample_folders():
        shutil.copytree(folder.path, target / folder.path.relative_to(copy), ignore=shutil.ignore_patterns("*.json"))


def _write_metadata(run: Run, copy: Path, target: Path) -> None:
    """A row per image, as the hub's viewer of image folders reads it."""
    rows, folders = [], list(Layout(copy).sample_folders())
    for folder in folders:
        manifest = read_json(folder.manifest)
        rows += [
            [f"{folder.path.name}/{one['file']}", manifest["method"], one["index"], one["prompt"]] for one in manifest["samples"]
        ]
    samples = target / folders[0].path.parent.relative_to(copy)
    with (samples / "metadata.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([["file_name", "method", "index", "prompt"], *rows])


@contextmanager
def module_upload(folder: Path, repository: str, run: Path | None, licence: str) -> Iterator[Upload]:
    """A feedback module with its card. Raises :class:`ArtifactError` where ``folder`` holds none."""
    from ilf.checkpoint import read_settings
    from reports.render.card import model_card

    settings, _ = read_settings(folder)
    measured = _measured(folder, run) if run is not None else None
    with TemporaryDirectory() as name:
        target = Path(name) / "model"
        target.mkdir()
        for file in ("config.json", WEIGHTS):
            if not (folder / file).is_file():
                raise ArtifactError(expected=f"a trained module in {folder}", got=f"no {file}", remedy="restore or retrain it")
            shutil.copyfile(folder / file, target / file)
        write_sums(target)
        tag = f"ilf-bench-module-{file_digest(target / WEIGHTS)[:16]}"
        (target / CARD).write_text(model_card(repository, vars(settings), tag, licence, measured), encoding="utf-8")
        _refuse_private([target], folder)
        yield Upload(target, repository, "model", tag)


def _measured(folder: Path, run: Path) -> Run:
    """The run, without paths, in which this very module was measured."""
    with redacted(run, PRIVATE, images=False) as copy:
        content = read_run(copy)
    digest = contents_digest([folder])
    if not any(record.identity.get(FILES) == digest for record in content.described.values()):
        raise UsageError(
            expected=f"a run in which {folder} was measured",
            got=f"{run}, whose methods read other files",
            remedy="name the run of this very module, or leave --run out",
        )
    return content


def _refuse_private(folders: list[Path], origin: Path) -> None:
    """Raise :class:`UsageError` on the host's name, or a path of this machine, in any text."""
    host = socket.gethostname()
    words = [str(origin.resolve()), str(Path.cwd()), os.path.expanduser("~") + "/", *([host] if len(host) > 3 else [])]
    found = re.compile(
        "|".join(rf"(?<![\w.-]){re.escape(word)}(?![\w-])" for word in words if len(word) > 3 and word != "localhost")
    )
    for folder in folders:
        for path in sorted(path for path in folder.rglob("*") if path.is_file() and path.suffix in TEXTS):
            if hit := found.search(path.read_text(encoding="utf-8", errors="replace")):
                raise UsageError(
                    expected="nothing of this machine in what is published",
                    got=f"{hit[0]!r} in {path.relative_to(folder)}",
                    remedy="rename what it stands in (a method's label, a prompt), or publish an `ilf-bench bundle` yourself",
                )
