"""No record of a run is forgotten: each kind is in the bundle, the history and its exports, and a change in any is noticed."""

from __future__ import annotations

import json
import re
import shutil
import zipfile
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from harness.errors import ArtifactError
from harness.history.bundle import IMAGES, MANIFEST, extract_bundle, verify_bundle, write_bundle
from harness.history.export import export_history, import_history
from harness.history.packing import inline, pack, run_id
from harness.history.store import History
from harness.history.verify import verify_run
from harness.storage.layout import FILES, FOLDERS, is_record, is_score
from harness.storage.records import DIGESTS, Piece, Run, parse_run, pieces_of, read_json, read_pieces, read_run, write_json
from tests.runs import whole_run


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return whole_run(tmp_path / "run")


def digests(run: Run) -> dict[str, str]:
    return {name: piece.digest for name, piece in pieces_of(run).items()}


def names_in(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_the_example_has_a_record_of_every_kind(run: Run) -> None:
    """Who adds a kind of record adds it to the example, and with that to all tests of this file."""
    assert {name.split("/")[0] for name in names_in(run.path)} == {*FILES, *FOLDERS}
    assert all(getattr(run, field.name) for field in fields(Run))


def test_reading_and_listing_are_inverses(run: Run) -> None:
    on_disk = {name: piece.digest for name, piece in read_pieces(run.path).items()}
    assert on_disk == digests(run) and set(on_disk) == {name for name in names_in(run.path) if is_record(name)}


FIELDS = ("latency_s", "unit", "steps", "reason", "network", "commit", "name", "format")


def _changed(content: Any) -> Any:
    """Something else of the same form: one number or text is another."""
    if isinstance(content, dict):
        key = next(key for key in FIELDS if key in content)
        return content | {key: _changed(content[key])}
    if isinstance(content, list):
        return [_changed(content[0]), *content[1:]]
    return content + "x" if isinstance(content, str) else content + 1


def test_every_record_decides_the_identity(run: Run) -> None:
    pieces, seen = pieces_of(run), {run_id(run)}
    for name, piece in pieces.items():
        without = {other: p for other, p in pieces.items() if other != name}
        if name not in ("spec.json", "environment.json"):
            seen.add(run_id(parse_run(without, run.path)))
        if name != "spec.json":
            seen.add(run_id(parse_run(pieces | {name: Piece(_changed(piece.content), piece.arrays)}, run.path)))
    assert len(seen) == 1 + 2 * len(pieces) - 3
    for name in (name for name, piece in pieces.items() if piece.arrays):
        arrays = {key: array + 1e-12 for key, array in pieces[name].arrays.items()}
        assert run_id(parse_run(pieces | {name: Piece(pieces[name].content, arrays)}, run.path)) not in seen


def test_a_bundle_holds_every_record(run: Run, tmp_path: Path) -> None:
    for images in (True, False):
        write_bundle(run.path, tmp_path / f"{images}.zip", images)
        extract_bundle(tmp_path / f"{images}.zip", tmp_path / f"back {images}")
        assert digests(read_run(tmp_path / f"back {images}")) == digests(run)
        kept = [name for name in names_in(run.path) if images or Path(name).suffix not in IMAGES]
        assert names_in(tmp_path / f"back {images}") == kept


def test_a_bundle_that_lost_a_record_along_with_its_entry_is_found(run: Run, tmp_path: Path) -> None:
    write_bundle(run.path, tmp_path / "whole.zip")
    for victim in sorted(pieces_of(run)):
        with zipfile.ZipFile(tmp_path / "whole.zip") as archive:
            content = {name: archive.read(name) for name in archive.namelist() if name != victim}
        manifest = json.loads(content[MANIFEST])
        del manifest["files"][victim]
        with zipfile.ZipFile(tmp_path / "less.zip", "w") as archive:
            for name, data in (content | {MANIFEST: json.dumps(manifest).encode()}).items():
                archive.writestr(name, data)
        (finding,) = verify_bundle(tmp_path / "less.zip").findings
        assert (finding.state, finding.path) == ("altered", MANIFEST), victim
        with pytest.raises(ArtifactError, match="nothing was unpacked"):
            extract_bundle(tmp_path / "less.zip", tmp_path / "out")


def test_the_history_keeps_every_record(run: Run, tmp_path: Path) -> None:
    history = History(tmp_path / "h.sqlite")
    identity = history.append(run)
    shutil.rmtree(run.path)
    back = history.load(identity)
    assert digests(back) == digests(run) and run_id(back) == identity
    assert {name: content for name, content in inline(pack(run))["records"].items()} == read_json_of(run)


def read_json_of(run: Run) -> dict[str, Any]:
    return {name: json.loads(json.dumps(piece.content)) for name, piece in pieces_of(run).items()}


@pytest.mark.parametrize("kind", ["json", "parquet"])
def test_exports_keep_every_record(run: Run, tmp_path: Path, kind: str) -> None:
    if kind == "parquet":
        pytest.importorskip("pyarrow")
    history, other = History(tmp_path / "h.sqlite"), History(tmp_path / "other.sqlite")
    identity = history.append(run)
    export_history(history, tmp_path / f"out.{kind}")
    import_history(other, tmp_path / f"out.{kind}")
    assert digests(other.load(identity)) == digests(run) and list(other.exported()) == list(history.exported())


def test_mlflow_keeps_every_record(run: Run, tmp_path: Path) -> None:
    mlflow = pytest.importorskip("mlflow")
    from reports.tracking.base import log_history
    from reports.tracking.mlflow import TAG, MlflowTracker

    history = History(tmp_path / "h.sqlite")
    identity = history.append(run)
    uri = (tmp_path / "mlruns").as_uri()
    log_history(history, MlflowTracker("", tmp_path), {})
    client = mlflow.MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name("tiny-text").experiment_id
    (logged,) = client.search_runs([experiment], f"tags.`{TAG}` = '{identity}'")
    record = json.loads(Path(client.download_artifacts(logged.info.run_id, "record.json", str(tmp_path))).read_text())
    assert set(record["records"]) == set(pieces_of(run)) and len(record["arrays"]) == 4


def flipped(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def edited(path: Path) -> None:
    """Changed by someone who knows about digests: the file is intact, and says something else."""
    if path.suffix != ".json":
        return flipped(path)
    content = read_json(path)
    if isinstance(content, dict):
        content.pop(DIGESTS, None)
        content["note"] = "mine"
    else:
        content = content[:-1]
    write_json(path, content)


def removed(path: Path) -> None:
    path.unlink()


@pytest.mark.parametrize(("damage", "states"), [(flipped, {"altered"}), (edited, {"altered"}), (removed, {"missing", "altered"})])
def test_verify_names_whatever_was_changed(run: Run, tmp_path: Path, damage: Callable[[Path], None], states: set[str]) -> None:
    assert verify_run(run.path, run).findings == ()
    for name in names_in(run.path):
        folder = tmp_path / "copy"
        shutil.copytree(run.path, folder)
        damage(folder / name)
        named = {finding.path: finding.state for finding in verify_run(folder, run).findings}
        record = name if is_record(name) or not is_score(name) else re.sub(r"(\.per_image)?\.npy$", ".json", name)
        assert record in named and named[record] in states, (name, named)
        shutil.rmtree(folder)


def test_verify_names_what_was_added(run: Run) -> None:
    for name in ("methods/mine.json", "timing/009.json", "faults/0009.json", "scores/mine/good.json", "scores/mine/x.npy"):
        file = run.path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        write_json(file, {"method": "mine"})
        assert [(f.state, f.path) for f in verify_run(run.path, run).findings] == [("extra", name)]
        file.unlink()


def test_images_that_were_all_removed_on_purpose_are_not_missed(run: Run) -> None:
    for image in run.path.rglob("*.png"):
        image.unlink()
    assert verify_run(run.path, run).findings == ()
