"""Bundles: the same bytes for the same run, every tampering named, nothing unpacked outside its folder."""

from __future__ import annotations

import json
import shutil
import stat
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from harness.errors import ArtifactError, UsageError
from harness.history.bundle import MANIFEST, extract_bundle, is_safe, verify_bundle, write_bundle
from harness.history.packing import run_id
from harness.history.store import History
from harness.storage.files import digest
from harness.storage.layout import slug
from harness.storage.records import read_run
from ilf_bench.cli import main
from tests.runs import whole_run


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """The folder of a run with a record of every kind, two images and a report."""
    folder = tmp_path / "runs" / "a run"
    whole_run(folder)
    (folder / "report").mkdir()
    (folder / "report" / "index.html").write_text("can be rebuilt")
    return folder


def test_everything_but_images_and_reports_comes_back(run: Path, tmp_path: Path) -> None:
    digest = write_bundle(run, tmp_path / "b.zip")
    verified = verify_bundle(tmp_path / "b.zip")
    assert verified.digest == digest and verified.findings == ()
    extract_bundle(tmp_path / "b.zip", tmp_path / "laptop")
    assert run_id(read_run(tmp_path / "laptop")) == run_id(read_run(run))
    names = {path.suffix for path in (tmp_path / "laptop").rglob("*") if path.is_file()}
    assert names == {".json", ".npy", ".py"} and not (tmp_path / "laptop" / "report").exists()
    write_bundle(run, tmp_path / "images.zip", images=True)
    extract_bundle(tmp_path / "images.zip", tmp_path / "with images")
    assert len(list((tmp_path / "with images").rglob("*.png"))) == 2


def test_equal_runs_give_equal_bytes(run: Path, tmp_path: Path) -> None:
    shutil.copytree(run, tmp_path / "copy" / run.name)
    first, second = (write_bundle(folder, tmp_path / name) for folder, name in ((run, "1"), (tmp_path / "copy" / run.name, "2")))
    assert first == second and (tmp_path / "1").read_bytes() == (tmp_path / "2").read_bytes()


def rewrite(bundle: Path, change: Callable[[str, bytes], bytes | None], extra: dict[str, bytes] | None = None) -> None:
    """The archive again, each file through ``change`` (None drops it), then ``extra`` files."""
    with zipfile.ZipFile(bundle) as archive:
        content = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(bundle, "w") as archive:
        for name, data in content.items():
            if (changed := change(name, data)) is not None:
                archive.writestr(name, changed)
        for name, data in (extra or {}).items():
            archive.writestr(name, data)


def test_altered_missing_and_extra_files_are_named(run: Path, tmp_path: Path) -> None:
    bundle = tmp_path / "b.zip"
    write_bundle(run, bundle)

    def change(name: str, data: bytes) -> bytes | None:
        if name == "timing/001.json":
            return data.replace(b"2.0", b"1.9")
        if name == "environment.json":
            return data + b"\n"
        return None if name == "timing/002.json" else data

    rewrite(bundle, change, {"timing/003.json": b"[]"})
    assert {(f.state, f.path) for f in verify_bundle(bundle).findings} == {
        ("altered", "timing/001.json"),
        ("altered", "environment.json"),
        ("missing", "timing/002.json"),
        ("extra", "timing/003.json"),
    }
    with pytest.raises(ArtifactError, match="nothing was unpacked"):
        extract_bundle(bundle, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert main(["verify", str(bundle)]) == 1


def test_every_single_file_counts(run: Path, tmp_path: Path) -> None:
    write_bundle(run, tmp_path / "b.zip", images=True)
    names = zipfile.ZipFile(tmp_path / "b.zip").namelist()
    for victim in (name for name in names if name != MANIFEST):
        shutil.copy(tmp_path / "b.zip", tmp_path / "c.zip")
        rewrite(tmp_path / "c.zip", lambda name, data, v=victim: data[:-1] + b"~" if name == v else data)  # type: ignore[misc]
        assert [(f.state, f.path) for f in verify_bundle(tmp_path / "c.zip").findings] == [("altered", victim)]


def test_a_rewritten_manifest_has_another_digest(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bundle = tmp_path / "b.zip"
    digest = write_bundle(run, bundle)
    assert main(["verify", str(bundle), "--digest", digest.upper()]) == 0
    rewrite(bundle, lambda name, data: data.replace(b"a run", b"b run") if name == MANIFEST else data)
    assert verify_bundle(bundle).findings == ()  # whoever rewrites all of it can only be told by the published digest
    assert main(["verify", str(bundle), "--digest", digest]) == 65
    assert "get that bundle from its publisher" in capsys.readouterr().err


@pytest.mark.parametrize(
    "name",
    ["../evil.json", "/etc/passwd", "samples/../../evil", "samples\\evil", "C:/evil", "samples/./x", "bin/sh", "scores/.x", ""],
)
def test_paths_that_lead_elsewhere_are_unsafe(run: Path, tmp_path: Path, name: str) -> None:
    assert not is_safe(name)
    bundle = tmp_path / "b.zip"
    write_bundle(run, bundle)
    if name:
        rewrite(bundle, lambda _, data: data, {name: b"x"})
        assert [f.state for f in verify_bundle(bundle).findings] == ["unsafe"]

    def listed(entry: str, data: bytes) -> bytes:
        if entry != MANIFEST:
            return data
        manifest = json.loads(data)
        manifest["files"][name] = {"sha256": digest(b"x"), "bytes": 1}
        return json.dumps(manifest).encode()

    rewrite(bundle, listed)
    with pytest.raises(ArtifactError, match="leads elsewhere"):
        extract_bundle(bundle, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_links_and_doubles_are_named(run: Path, tmp_path: Path) -> None:
    write_bundle(run, tmp_path / "b.zip")
    with zipfile.ZipFile(tmp_path / "b.zip") as archive:
        content = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(tmp_path / "link.zip", "w") as archive:
        for name, data in content.items():
            entry = zipfile.ZipInfo(name)
            entry.external_attr = (stat.S_IFLNK | 0o777) << 16 if name == "run.json" else 0
            archive.writestr(entry, data)
    with zipfile.ZipFile(tmp_path / "double.zip", "w") as archive, pytest.warns(UserWarning, match="Duplicate"):
        for name, data in (*content.items(), ("spec.json", content["spec.json"])):
            archive.writestr(name, data)
    for name, message in (("link", "'run.json' is a link"), ("double", "'spec.json' is in it more than once")):
        with pytest.raises(ArtifactError, match=message):
            verify_bundle(tmp_path / f"{name}.zip")


def test_other_files_are_refused(run: Path, tmp_path: Path) -> None:
    write_bundle(run, tmp_path / "b.zip")
    whole = (tmp_path / "b.zip").read_bytes()
    (tmp_path / "cut.zip").write_bytes(whole[: len(whole) // 2])
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as archive:
        archive.writestr("a.txt", "hello")
    with zipfile.ZipFile(tmp_path / "later.zip", "w") as archive:
        archive.writestr(MANIFEST, json.dumps({"kind": "ilf-bench bundle", "format": 9, "files": {}}))
    for name, message in (
        ("cut", "a bundle at"),
        ("other", MANIFEST),
        ("later", "record format 1 at .*; got record format 9"),
        ("absent", "a bundle at"),
    ):
        with pytest.raises(ArtifactError, match=message):
            verify_bundle(tmp_path / f"{name}.zip")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").write_text("")
    with pytest.raises(UsageError, match="new or empty"):
        extract_bundle(tmp_path / "b.zip", tmp_path / "full")


def test_a_run_folder_is_held_against_the_history(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = run.parent
    History(out / "history.sqlite").append(read_run(run))
    arguments = ["verify", str(run), "--out", str(out)]
    assert main(arguments) == 0
    values = run / "scores" / slug("full") / "good.npy"
    content = values.read_bytes()
    np.save(values, np.load(values) + 1e-12)
    capsys.readouterr()
    assert main(arguments) == 1 and f"{slug('full')}/good.npy" in capsys.readouterr().out, (
        "named where it no longer fits its digest"
    )
    values.write_bytes(content)
    (run / "samples" / slug("full") / "000001.png").write_bytes(b"x")
    (run / "samples" / slug("full") / "000007.png").write_bytes(b"x")
    (run / "timing" / "001.json").unlink()
    capsys.readouterr()
    assert main(arguments) == 1
    said = capsys.readouterr().out
    assert "missing: timing/001.json" in said
    assert "altered: samples/" in said and "extra: samples/" in said and "1 altered, 1 missing, 1 extra" in said
