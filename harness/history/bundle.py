"""A run as one archive that can be checked: every record with its digest, and one digest over all of them.

The archive is a zip with ``bundle.json`` first: kind, format, run id, whether images are inside, and SHA-256 and size of every
file. The bundle's digest is that of ``bundle.json``; who publishes the digest signs the bundle by it. Images are left out unless
asked for; reports need none but for the sample grid. Equal runs give equal bytes.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import stat
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from harness.errors import ArtifactError, UsageError
from harness.history.packing import run_id
from harness.history.redaction import redacted
from harness.history.selection import IMAGES, packed_files
from harness.storage.archives import BROKEN, open_archive, read_chunks
from harness.storage.arrays import SCORE_BYTES
from harness.storage.checks import is_safe
from harness.storage.documents import parse_json
from harness.storage.files import RECORD_BYTES, UMASK, file_digest, replacing
from harness.storage.layout import is_record, is_score, members
from harness.storage.records import FORMAT, Run, check_format, read_run

KIND, MANIFEST = "ilf-bench bundle", "bundle.json"
LONG_AGO = (1980, 1, 1, 0, 0, 0)  # the earliest moment a zip can hold: the archive's bytes depend on the run alone
MOST_BYTES = 64 * 2**30
UNREADABLE = (  # a damaged member, or a name that is a file and a folder at once
    *(zipfile.BadZipFile, EOFError, RuntimeError, zlib.error),
    *(NotADirectoryError, IsADirectoryError, FileExistsError),
)
MANIFEST_BYTES = 64 * 2**20  # 400,000 files
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


def write_bundle(run: Path, target: Path, images: bool = False, without: Collection[str] = ()) -> str:
    """Pack a run, partial or complete, and return the bundle's digest.

    ``without`` names what is left out (see :data:`harness.history.redaction.REDACTED`); the bundle is then of the run without it,
    which has another id. Raises :class:`UsageError` on an unknown name, and for images without prompts.
    """
    if not without:
        return _write(run, target, images)
    with redacted(run, without, images) as copy:
        return _write(copy, target, images, run.resolve().name)


def _write(run: Path, target: Path, images: bool, name: str = "") -> str:
    content = read_run(run)  # refuses what is no run, is damaged or of another format
    files = packed_files(run, images)
    manifest = {
        "kind": KIND,
        "format": FORMAT,
        "run_id": run_id(content),
        "name": name or run.resolve().name,
        "images": images,
        "files": {name: {"sha256": file_digest(path), "bytes": path.stat().st_size} for name, path in files.items()},
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


def verify_bundle(bundle: Path) -> Verified:
    """Every file against its digest. Raises :class:`ArtifactError` on a file that is no bundle or is damaged as a whole."""
    with tempfile.TemporaryDirectory() as folder:
        return _unpack(bundle, Path(folder), lambda name: is_record(name) or is_score(name))


@contextmanager
def opened_bundle(bundle: Path) -> Iterator[tuple[Verified, Run]]:
    """An intact bundle and its run without images, whose records lie in a folder that is gone after the block.

    Raises :class:`ArtifactError` where anything in it is not as it was.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        found = _unpack(bundle, folder, lambda name: is_record(name) or is_score(name))
        _check_intact(found, bundle)
        yield found, read_run(folder)


def _check_intact(found: Verified, bundle: Path) -> None:
    if findings := found.findings:
        raise ArtifactError(
            expected=f"an intact bundle at {bundle}",
            got=f"{findings[0].state}: {findings[0].path}, {len(findings)} in all",
            remedy="see ilf-bench verify; nothing was unpacked",
        )


def extract_bundle(bundle: Path, folder: Path, digest: str | None = None) -> Verified:
    """Unpack an intact bundle, the one of ``digest`` where that is given, into a new folder.

    Raises :class:`ArtifactError` where anything in it is not as it was.

    Every file is hashed while it is written, in a folder beside the new one that takes its name when all of them are right.
    """
    if folder.is_symlink() or (folder.exists() and any(folder.iterdir())):
        raise UsageError(expected=f"a new or empty folder {folder}", got="one with files in it", remedy="name another folder")
    folder.parent.mkdir(parents=True, exist_ok=True)
    beside = Path(tempfile.mkdtemp(dir=folder.parent, prefix=".", suffix=".tmp"))
    try:
        found = _unpack(bundle, beside, lambda name: True)
        _check_intact(found, bundle)
        if digest is not None and found.digest != digest:
            raise ArtifactError(expected=f"the bundle {digest} at {bundle}", got=found.digest, remedy="get it again")
        beside.chmod(0o777 & ~UMASK)
        beside.replace(folder)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return found


def _unpack(bundle: Path, folder: Path, is_kept: Callable[[str], bool]) -> Verified:
    """Hash every file of a bundle in one pass, write those that are kept, and find what is not as it was."""
    try:
        with open_archive(bundle) as archive:
            manifest, digest = _manifest(archive, bundle)
            files = manifest["files"]
            findings = tuple(_check(archive, files, folder, is_kept)) or tuple(_other_run(folder, manifest))
            strays = sorted(files.keys() - members(files))  # of a lost record, which is named alone
            findings = findings or tuple(Discrepancy("extra", name, "belongs to no record") for name in strays)
            return Verified(digest, len(files), findings)
    except (*BROKEN, zlib.error) as error:
        raise ArtifactError(expected=f"a bundle at {bundle}", got=str(error), remedy="copy or download it again") from error


def _other_run(folder: Path, manifest: Mapping[str, Any]) -> Iterator[Discrepancy]:
    """Whether the records, each of them intact, are still all that the run consisted of when it was packed."""
    try:
        found = run_id(read_run(folder))
    except ArtifactError as error:
        yield Discrepancy("altered", MANIFEST, str(error).replace(str(folder), "the bundle"))
        return
    if found != manifest["run_id"]:
        yield Discrepancy("altered", MANIFEST, f"its records are those of run {found}, and not of {manifest['run_id']}")


def _manifest(archive: zipfile.ZipFile, bundle: Path) -> tuple[dict[str, Any], str]:
    """The manifest, whose names are safe, and the digest of its bytes."""
    try:
        entry = archive.getinfo(MANIFEST)
        if entry.file_size > MANIFEST_BYTES:
            raise ValueError(f"a {MANIFEST} of {entry.file_size:,} bytes")
        text = b"".join(read_chunks(archive, entry, entry.file_size))
        manifest = parse_json(text)
        files = {str(name): (str(entry["sha256"]), int(entry["bytes"])) for name, entry in manifest["files"].items()}
        if manifest["kind"] != KIND:
            raise ValueError(f"{manifest['kind']!r}")
        check_format(manifest, str(bundle))
        manifest["run_id"]  # raises where there is none
        if unsafe := [name for name in files if not is_safe(name)]:
            raise ValueError(f"a path that leads elsewhere: {unsafe[0]!r}")
        if sum(size for _, size in files.values()) > MOST_BYTES or any(size < 0 for _, size in files.values()):
            raise ValueError(f"more than {MOST_BYTES // 2**30} GiB of files")
        if large := [name for name, (_, size) in files.items() if size > _most(name)]:
            raise ValueError(f"{large[0]!r} is larger than a record may be")
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise ArtifactError(
            expected=f"a bundle with its {MANIFEST} at {bundle}", got=str(error), remedy="bundle the run again"
        ) from error
    return manifest | {"files": files}, hashlib.sha256(text).hexdigest()


def _most(name: str) -> int:
    """Bytes that a reader of this file would take."""
    if is_score(name) and name.endswith(".npy"):
        return SCORE_BYTES
    return RECORD_BYTES if name.endswith(".json") else MOST_BYTES


def _check(
    archive: zipfile.ZipFile, files: Mapping[str, tuple[str, int]], folder: Path, is_kept: Callable[[str], bool]
) -> Iterator[Discrepancy]:
    by_name = {entry.filename: entry for entry in archive.infolist() if entry.filename != MANIFEST}
    for name, (digest, size) in files.items():
        if name not in by_name:
            yield Discrepancy("missing", name)
        elif problem := _difference(archive, by_name[name], digest, size, folder / name if is_kept(name) else None):
            yield Discrepancy("altered", name, problem)
    for name in by_name:
        if name not in files:
            yield Discrepancy("extra" if is_safe(name) else "unsafe", name)


def _difference(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, digest: str, size: int, target: Path | None) -> str:
    """What differs, reading no more than the manifest's size; what is read is written to ``target`` where there is one."""
    if entry.file_size != size:
        return f"{entry.file_size} bytes where {size} were"
    found = hashlib.sha256()
    try:
        with nullcontext() if target is None else replacing(target) as file:
            for chunk in read_chunks(archive, entry, size):
                found.update(chunk)
                if file is not None:
                    file.write(chunk)
    except (
        zipfile.BadZipFile,
        EOFError,
        RuntimeError,
        zlib.error,
        NotADirectoryError,
        IsADirectoryError,
        FileExistsError,
    ) as error:
        return f"unreadable: {error}"
    return "" if found.hexdigest() == digest else "another digest"
