"""A bundle from a stranger is stored or deflated, of a bounded size, hashed while it is unpacked beside its place, or refused."""

from __future__ import annotations

import json
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness.errors import ArtifactError, UsageError
from harness.history import bundle as bundles
from harness.history.bundle import MANIFEST, extract_bundle, verify_bundle, write_bundle
from harness.storage.files import digest
from harness.storage.layout import Layout, slug
from harness.storage.records import read_json, read_run, write_json
from ilf_bench.cli import main
from reports.render.build import build_report
from tests.runs import whole_run
from tests.security.crafted import MIB, bounded

Members = dict[str, bytes]


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    write_bundle(whole_run(tmp_path / "run").path, tmp_path / "b.zip")
    return tmp_path / "b.zip"


def members(bundle: Path) -> Members:
    with zipfile.ZipFile(bundle) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def write(bundle: Path, content: Members, method: int = zipfile.ZIP_DEFLATED, **claimed: Any) -> None:
    """An archive of these members, with a manifest that fits them but for what is ``claimed``."""
    manifest = json.loads(content[MANIFEST])
    files = {name: {"sha256": digest(data), "bytes": len(data)} for name, data in content.items() if name != MANIFEST}
    with zipfile.ZipFile(bundle, "w", method) as archive:
        archive.writestr(MANIFEST, json.dumps({**manifest, "files": files, **claimed}))
        for name, data in content.items():
            if name != MANIFEST:
                archive.writestr(name, data)


def bzip2(bundle: Path) -> None:
    write(bundle, members(bundle), zipfile.ZIP_BZIP2)


def lzma(bundle: Path) -> None:
    write(bundle, members(bundle), zipfile.ZIP_LZMA)


def zeros(bundle: Path) -> None:
    """A gigabyte in a megabyte."""
    with (
        zipfile.ZipFile(bundle, "a", zipfile.ZIP_DEFLATED) as archive,
        archive.open("scores/x/zeros.npy", "w", force_zip64=True) as file,
    ):
        for _ in range(1024):
            file.write(bytes(MIB))


def overlap(bundle: Path) -> None:
    """Every entry of the list of members points at the same bytes."""
    data = bytearray(bundle.read_bytes())
    start = data.index(b"PK\x01\x02")
    first = data[start + 42 : start + 46]
    while (start := data.find(b"PK\x01\x02", start + 4)) >= 0:
        data[start + 42 : start + 46] = first
    bundle.write_bytes(data)


def many(bundle: Path) -> None:
    """A list of half a million members that are not there."""
    name = b"scores/x/a.npy"
    entry = b"PK\x01\x02" + struct.pack("<HHHHHHIIIHHHHHII", 20, 20, 0, 0, 0, 0, 0, 0, 0, len(name), 0, 0, 0, 0, 0, 0) + name
    directory = entry * 500_000
    end = b"PK\x05\x06" + struct.pack("<HHHHIIH", 0, 0, 65535, 65535, len(directory), 0, 0)
    bundle.write_bytes(directory + end)


def gigantic_manifest(bundle: Path) -> None:
    with zipfile.ZipFile(bundle, "w", zipfile.ZIP_DEFLATED) as archive, archive.open(MANIFEST, "w", force_zip64=True) as file:
        for _ in range(300):
            file.write(b" " * MIB)


def lying_sizes(bundle: Path) -> None:
    content = members(bundle)
    files = {name: {"sha256": "0" * 64, "bytes": 2**60} for name in content if name != MANIFEST}
    write(bundle, content, files=files)


def nested(bundle: Path) -> None:
    with zipfile.ZipFile(bundle, "w") as archive:
        archive.writestr(MANIFEST, b"[" * 100_000)


def escaping(name: str) -> Callable[[Path], None]:
    def make(bundle: Path) -> None:
        write(bundle, members(bundle) | {name: b"{}"})

    return make


def large_member(bundle: Path, name: str) -> None:
    """With a member that no reader of records takes, and a manifest that says so."""
    write(bundle, members(bundle) | {name: bytes(40 * MIB)}, zipfile.ZIP_STORED)


def file_and_folder(bundle: Path) -> None:
    write(bundle, members(bundle) | {"scores/x": b"{}", "scores/x/y.json": b"{}"})


KINDS: list[Callable[[Path], None]] = [
    bzip2,
    lzma,
    zeros,
    overlap,
    many,
    gigantic_manifest,
    lying_sizes,
    nested,
    file_and_folder,
]
LARGE = ["environment.json", "samples/x/chunk-000000.json", "scores/x/good.npy"]
NAMES = [
    "../out.json",
    "/etc/out.json",
    "scores/../../out.json",
    "scores\\..\\out.json",
    "report/index.html",
    ".lock",
    "scores/x/\x1b[2J.json",
]


@pytest.mark.parametrize("make", [*KINDS, *map(escaping, NAMES)], ids=[*(kind.__name__ for kind in KINDS), *map(repr, NAMES)])
def test_a_hostile_bundle_is_refused_and_leaves_nothing(make: Callable[[Path], None], bundle: Path, tmp_path: Path) -> None:
    make(bundle)
    before = sorted(tmp_path.rglob("*"))
    with bounded():
        try:
            assert verify_bundle(bundle).findings
        except ArtifactError as error:
            assert str(bundle) in str(error)
        with pytest.raises(ArtifactError):
            extract_bundle(bundle, tmp_path / "back")
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("name", LARGE)
def test_too_large_a_record_is_refused_from_the_manifest(name: str, bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    large_member(bundle, name)
    monkeypatch.setattr(bundles, "_check", lambda *arguments: pytest.fail("something was unpacked"))
    with bounded(), pytest.raises(ArtifactError, match="larger than a record may be"):
        verify_bundle(bundle)


def test_an_intact_bundle_is_unpacked_whole(bundle: Path, tmp_path: Path) -> None:
    found = verify_bundle(bundle)
    assert not found.findings and extract_bundle(bundle, tmp_path / "back", found.digest) == found
    assert (tmp_path / "back").stat().st_mode & 0o077, "only its owner could read it"
    with pytest.raises(ArtifactError, match="get it again"):
        extract_bundle(bundle, tmp_path / "other", "0" * 64)
    assert not (tmp_path / "other").exists()


def test_a_link_is_not_unpacked_into(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "back").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UsageError):
        extract_bundle(bundle, tmp_path / "back")
    assert not list((tmp_path / "elsewhere").iterdir())


def test_a_bundle_without_prompts_holds_none(tmp_path: Path) -> None:
    run = whole_run(tmp_path / "run").path
    manifests = [read_json(folder.manifest) for folder in Layout(run).sample_folders()]
    prompts = {sample["prompt"] for manifest in manifests for sample in manifest["samples"]}
    assert prompts and "" not in prompts
    assert main(["bundle", str(run), str(tmp_path / "b.zip"), "--without", "prompts,command"]) == 0
    text = b"".join(members(tmp_path / "b.zip").values())
    assert not any(json.dumps(prompt).encode() in text for prompt in prompts)
    assert not verify_bundle(tmp_path / "b.zip").findings
    extract_bundle(tmp_path / "b.zip", tmp_path / "back")
    assert read_run(tmp_path / "back").environment["command"] == ""
    assert read_run(tmp_path / "back").scores.keys() == read_run(run).scores.keys() and build_report(tmp_path / "back").exists()
    assert [read_json(folder.manifest) for folder in Layout(run).sample_folders()] == manifests, "the run itself was changed"


def test_a_bundle_of_a_partial_run_holds_no_prompts_either(tmp_path: Path) -> None:
    run = Layout(whole_run(tmp_path / "run").path)
    receipt = read_json(run.sample_folders()[0].manifest)
    sample = receipt["samples"][0] | {"prompt": "SECRET of a receipt", "caption": "SECRET too"}
    write_json(run.samples("8 steps").receipt(0), {"samples": [sample], "block_evaluations": 1})
    write_json(run.spec, read_json(run.spec) | {"negative_prompt": "SECRET of the preset"})
    write_json(run.environment, read_json(run.environment) | {"command": "ilf-bench run --set negative_prompt=SECRET"})
    assert main(["bundle", str(run.run), str(tmp_path / "b.zip"), "--without", "prompts,plugins"]) == 0
    packed = members(tmp_path / "b.zip")
    assert not [name for name, content in packed.items() if b"SECRET" in content or name.startswith("plugins/")]
    assert run.samples("8 steps").receipt(0).relative_to(run.run).as_posix() in packed
    assert run.plugins() and not verify_bundle(tmp_path / "b.zip").findings


STRAYS = ["samples/notes.txt", "samples/FULL/private.json", "samples/FULL/a.bmp", "samples/FULL/x.png", "scores/FULL/junk.npy"]


def test_a_bundle_holds_nothing_that_belongs_to_no_record(tmp_path: Path) -> None:
    run = whole_run(tmp_path / "run").path
    write_bundle(run, tmp_path / "before.zip", images=True)
    for name in STRAYS:
        (run / name.replace("FULL", slug("full"))).write_bytes(b"private")
    write_bundle(run, tmp_path / "after.zip", images=True)
    assert (tmp_path / "after.zip").read_bytes() == (tmp_path / "before.zip").read_bytes()


@pytest.mark.parametrize("name", STRAYS)
def test_a_member_that_belongs_to_no_record_is_named(name: str, bundle: Path, tmp_path: Path) -> None:
    name = name.replace("FULL", slug("full"))
    write(bundle, members(bundle) | {name: b"more"})
    assert [(found.state, found.path) for found in verify_bundle(bundle).findings] == [("extra", name)]
    with pytest.raises(ArtifactError, match="extra"):
        extract_bundle(bundle, tmp_path / "back")


@pytest.mark.parametrize("without", [(), ("prompts",)])
def test_a_hard_link_is_not_packed(without: tuple[str, ...], tmp_path: Path) -> None:
    run, secret = whole_run(tmp_path / "run").path, tmp_path / "secret"
    secret.write_bytes(b"private")
    Layout(run).samples("8 steps").receipt(0).parent.mkdir(parents=True, exist_ok=True)
    Layout(run).samples("8 steps").receipt(0).hardlink_to(secret)
    with pytest.raises(ArtifactError, match="a hard link"):
        write_bundle(run, tmp_path / "b.zip", without=without)
    assert not (tmp_path / "b.zip").exists()


@pytest.mark.parametrize("options", [["--without", "scores"], ["--without", "prompts", "--images"]])
def test_what_cannot_be_left_out_is_refused(options: list[str], tmp_path: Path) -> None:
    run = whole_run(tmp_path / "run").path
    assert main(["bundle", str(run), str(tmp_path / "b.zip"), *options]) == 64 and not (tmp_path / "b.zip").exists()
