"""A run folder against its record in the history, and its arrays and images against the records that have their digests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from harness.errors import ArtifactError
from harness.history.bundle import Discrepancy, Verified
from harness.storage.checks import check_manifest
from harness.storage.files import file_digest
from harness.storage.layout import VALUES, array_beside, is_record
from harness.storage.records import Run, pieces_of, read_json, read_piece, record_files


def verify_run(folder: Path, recorded: Run) -> Verified:
    """What the folder holds now against ``recorded``, file by file; one that cannot be read counts as altered."""
    found = {path.relative_to(folder).as_posix() for path in record_files(folder)}
    then = {name: piece.digest for name, piece in pieces_of(recorded).items()}
    findings: list[Discrepancy] = []
    for name in sorted(then.keys() | {name for name in found if is_record(name)}):
        findings += _record(folder, name, then.get(name), name in found)
    findings += _beside(folder, recorded, found)
    return Verified("", len(found), tuple(findings))


def _record(folder: Path, name: str, then: str | None, is_there: bool) -> Iterator[Discrepancy]:
    if not is_there:
        yield Discrepancy("missing", name)
    elif then is None:
        yield Discrepancy("extra", name, "not in the history's record")
    else:
        try:
            if read_piece(folder, name).digest != then:
                yield Discrepancy("altered", name, "not what the history recorded")
        except ArtifactError as error:
            yield Discrepancy("altered", name, f"{error.expected}, {error.got}")


def _beside(folder: Path, recorded: Run, found: set[str]) -> Iterator[Discrepancy]:
    """Files that belong to a record: measurements, images and receipts by their digests, and none that belongs to no record.

    Images that were all removed on purpose are not missed.
    """
    known = {array_beside(Path(name), key).as_posix() for name, piece in pieces_of(recorded).items() for key in piece.arrays}
    for name, content in recorded.measurements.items():
        array = array_beside(Path(name), VALUES)
        known.add(array.as_posix())
        yield from _file(folder, array.as_posix(), str(content["digest"]), found)
    for name, digest in recorded.samples.items():
        where = Path(name).parent.as_posix()
        if name not in found or read_piece(folder, name).content != digest:
            known |= {other for other in found if other.startswith(f"{where}/")}  # of an altered manifest, which is named
            continue
        manifest = read_json(folder / name)
        check_manifest(manifest, folder / name)
        images = {f"{where}/{s['file']}": str(s["sha256"]) for s in manifest["samples"]}
        receipts = {f"{where}/{name}": str(digest) for name, digest in manifest.get("receipts", {}).items()}
        known |= images.keys() | receipts.keys()
        for name, digest in {**receipts, **(images if found & images.keys() else {})}.items():
            yield from _file(folder, name, digest, found)
    yield from (Discrepancy("extra", name, "belongs to no record") for name in sorted(found - known) if not is_record(name))


def _file(folder: Path, name: str, digest: str, found: set[str]) -> Iterator[Discrepancy]:
    if name not in found:
        yield Discrepancy("missing", name)
    elif file_digest(folder / name) != digest:
        yield Discrepancy("altered", name, "another digest than in its record")
