"""A run as one archive that can be checked: every record with its digest, and one digest over all of them.

The archive is a zip with ``bundle.json`` first: kind, format, run id, whether images are inside, and SHA-256 and size of every
file. The bundle's digest is that of ``bundle.json``; who publishes the digest signs the bundle by it. Images are left out unless
asked for; reports need none but for the sample grid. Equal runs give equal bytes.
"""

from __future__ import annotations

import hashlib
import json
import stat
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from harness.errors import ArtifactError, UsageError
from harness.history.packing import run_id
from harness.storage.files import replacing, write_bytes
from harness.storage.layout import FILES, FOLDERS, is_record, is_score
from harness.storage.records import FORMAT, check_format, read_run, record_files

KIND, MANIFEST = "ilf-bench bundle", "bundle.json"
IMAGES = {".png", ".jpg", ".jpeg", ".webp"}
LONG_AGO = (1980, 1, 1, 0, 0, 0)  # the earliest moment a zip can hold: the archive's bytes depend on the run alone
MOST_BYTES = 64 * 2**30
CHUNK = 2**20


@dataclass(frozen=True)
class Discrepancy:
    """What is wrong with one file: ``altered``, ``missing``, ``extra`` or ``unsafe``."""

    state: str
    path: str
    detail: str = ""


@dataclass(frozen=True)
class Verified:
    """``digest`` is the bundle's own, empty for a run folder; intact where nothing was found."""

    digest: str
    files: int
    findings: tuple[Discrepancy, ...]


def write_bundle(run: Path, target: Path, images: bool = False) -> str:
    """Pack a run, partial or complete, and return the bundle's digest."""
    content = read_run(run)  # refuses what is no run, is damaged or of another format
    kept = [path for path in record_files(run) if images or path.suffix.lower() not in IMAGES]
    files = {path.relative_to(run).as_posix(): path for path in kept}
    manifest = {
        "kind": KIND,
        "format": FORMAT,
        "run_id": run_id(content),
        "name": run.resolve().name,
        "images": images,
        "files": {name: {"sha256": _digest_of(path), "bytes": path.stat().st_size} for name, path in files.items()},
    }
    text = (json.dumps(manifest, indent=1, sort_keys=True) + "\n").encode()
    with replacing(target) as file, zipfile.ZipFile(file, "w") as archive:
        archive.writestr(_entry(MANIFEST), text)
        for name, path in files.items():
            with path.open("rb") as source, archive.open(_entry(name), "w") as sink:
                while chunk := source.read(CHUNK):
                    sink.write(chunk)
    return hashlib.sha256(text).hexdigest()


def _entry(name: str) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name, LONG_AGO)
    entry.compress_type = zipfile.ZIP_STORED if PurePosixPath(name).suffix in IMAGES else zipfile.ZIP_DEFLATED
    entry.external_attr = (stat.S_IFREG | 0o644) << 16
    return entry


def _digest_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def verify_bundle(bundle: Path) -> Verified:
    """Every file against its digest. Raises :class:`ArtifactError` on a file that is no bundle or is damaged as a whole."""
    with _opened(bundle) as archive:
        manifest, digest = _manifest(archive, bundle)
        findings = tuple(_check(archive, manifest["files"])) or tuple(_other_run(archive, manifest))
        return Verified(digest, len(manifest["files"]), findings)


def _other_run(archive: zipfile.ZipFile, manifest: Mapping[str, Any]) -> Iterator[Discrepancy]:
    """Whether the records, each of them intact, are still all that the run consisted of when it was packed."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for file in manifest["files"]:
            if is_record(file) or is_score(file):
                write_bytes(folder / file, archive.read(file))
        try:
            found = run_id(read_run(folder))
        except ArtifactError as error:
            yield Discrepancy("altered", MANIFEST, str(error).replace(name, "the bundle"))
            return
    if found != manifest["run_id"]:
        yield Discrepancy("altered", MANIFEST, f"its records are those of run {found}, and not of {manifest['run_id']}")


def extract_bundle(bundle: Path, folder: Path) -> None:
    """Unpack an intact bundle into a new folder. Raises :class:`ArtifactError` where anything in it is not as it was."""
    if folder.exists() and any(folder.iterdir()):
        raise UsageError(expected=f"a new or empty folder {folder}", got="one with files in it", remedy="name another folder")
    if findings := verify_bundle(bundle).findings:
        raise ArtifactError(
            expected=f"an intact bundle at {bundle}",
            got=f"{findings[0].state}: {findings[0].path}, {len(findings)} in all",
            remedy="see ilf-bench verify; nothing was unpacked",
        )
    with _opened(bundle) as archive:
        for name in _manifest(archive, bundle)[0]["files"]:
            write_bytes(folder / name, archive.read(name))


def _opened(bundle: Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(bundle)
    except (OSError, zipfile.BadZipFile) as error:
        raise ArtifactError(expected=f"a bundle at {bundle}", got=str(error), remedy="copy or download it again") from error


def _manifest(archive: zipfile.ZipFile, bundle: Path) -> tuple[dict[str, Any], str]:
    """The manifest, whose names are safe, and the digest of its bytes."""
    try:
        text = archive.read(MANIFEST)
        manifest = json.loads(text)
        files = {str(name): (str(entry["sha256"]), int(entry["bytes"])) for name, entry in manifest["files"].items()}
        if manifest["kind"] != KIND:
            raise ValueError(f"{manifest['kind']!r}")
        check_format(manifest, str(bundle))
        if unsafe := [name for name in files if not is_safe(name)]:
            raise ValueError(f"a path that leads elsewhere: {unsafe[0]!r}")
        if sum(size for _, size in files.values()) > MOST_BYTES:
            raise ValueError(f"more than {MOST_BYTES // 2**30} GiB of files")
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError, zipfile.BadZipFile) as error:
        raise ArtifactError(
            expected=f"a bundle with its {MANIFEST} at {bundle}", got=str(error), remedy="bundle the run again"
        ) from error
    return manifest | {"files": files}, hashlib.sha256(text).hexdigest()


def is_safe(name: str) -> bool:
    """Whether a path stays inside the folder it is unpacked into, on every system."""
    parts = name.split("/")
    plain = not any(part in ("", ".", "..") or part.startswith(".") for part in parts)
    known = name in FILES or parts[0] in FOLDERS
    return plain and known and not any(character in name for character in '\\:\0*?"<>|')


def _check(archive: zipfile.ZipFile, files: Mapping[str, tuple[str, int]]) -> Iterator[Discrepancy]:
    entries = [entry for entry in archive.infolist() if entry.filename != MANIFEST]
    names = [entry.filename for entry in archive.infolist()]
    for name in sorted({name for name in names if names.count(name) > 1}):
        yield Discrepancy("extra", name, "it is in the archive more than once")
    by_name = {entry.filename: entry for entry in entries}
    for name, (digest, size) in files.items():
        if name not in by_name:
            yield Discrepancy("missing", name)
        elif stat.S_ISLNK(by_name[name].external_attr >> 16):
            yield Discrepancy("unsafe", name, "a link")
        elif problem := _difference(archive, by_name[name], digest, size):
            yield Discrepancy("altered", name, problem)
    for entry in entries:
        if entry.filename not in files:
            yield Discrepancy("extra" if is_safe(entry.filename) else "unsafe", entry.filename)


def _difference(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, digest: str, size: int) -> str:
    """What differs, reading no more than the manifest's size: a small archive cannot fill the memory."""
    if entry.file_size != size:
        return f"{entry.file_size} bytes where {size} were"
    found = hashlib.sha256()
    try:
        with archive.open(entry) as file:
            while chunk := file.read(CHUNK):
                found.update(chunk)
    except (zipfile.BadZipFile, RuntimeError, EOFError, OSError, ValueError) as error:
        return f"unreadable: {error}"
    return "" if found.hexdigest() == digest else "another digest"
