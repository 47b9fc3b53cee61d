"""The leaderboard from bundles on disk: real ones, twice the same, and hostile ones, each refused by one line."""

from __future__ import annotations

import json
import re
import zipfile
from pathlib import Path

import pytest

from harness.history.bundle import MANIFEST, verify_bundle
from harness.paths import ROOT
from ilf_bench.cli import main
from tests.harness.history.test_bundle import rewrite

DATA = ROOT / "tests" / "data" / "format-1"


def test_a_site_of_two_bundles(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = [DATA / "complete.zip", DATA / "failures.zip", DATA / "complete.zip"]
    assert main(["leaderboard", *map(str, given), "--html", str(tmp_path / "site")]) == 0
    assert "passed over: complete.zip has the run of e5a1d9e9df3d" in " ".join(capsys.readouterr().out.split())
    page = (tmp_path / "site" / "index.html").read_text()
    assert "internally consistent" in page and "no signature" in page
    for bundle in given[:2]:
        digest = verify_bundle(bundle).digest
        assert (tmp_path / "site" / "bundles" / f"{digest}.zip").read_bytes() == bundle.read_bytes()
        assert f'id="b-{digest}"' in page and f'href="bundles/{digest}.zip"' in page
    links = set(re.findall(r'href="([^"]+)"', page)) - {"data:,"}
    anchors = set(re.findall(r'id="([^"]+)"', page))
    assert links and all(link[1:] in anchors if link[0] == "#" else (tmp_path / "site" / link).is_file() for link in links)


def hostile(folder: Path) -> dict[str, Path]:
    """Bundles that are altered, crafted or none at all."""
    whole = (DATA / "failures.zip").read_bytes()
    made = {name: folder / f"{name}.zip" for name in ("cut", "text", "altered", "later", "strange", "<b>bomb")}
    made["cut"].write_bytes(whole[: len(whole) // 2])
    made["text"].write_text("hello")
    made["altered"].write_bytes(whole)
    rewrite(made["altered"], lambda name, data: data + b" " if name == "spec.json" else data)
    for name, manifest in (
        ("later", {"kind": "ilf-bench bundle", "format": 2, "files": {}}),
        ("strange", {"kind": "ilf-bench bundle", "format": 1, "run_id": "a", "files": {"../x": {"sha256": "", "bytes": 1}}}),
    ):
        with zipfile.ZipFile(made[name], "w") as archive:
            archive.writestr(MANIFEST, json.dumps(manifest))
    with zipfile.ZipFile(made["<b>bomb"], "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(MANIFEST, b" " * 10_000_000)
    return made


def test_hostile_bundles_are_refused_by_one_line_each(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bad = hostile(tmp_path)
    assert main(["leaderboard", *map(str, bad.values()), str(DATA / "failures.zip"), "--html", str(tmp_path / "site")]) == 4
    page = (tmp_path / "site" / "index.html").read_text()
    assert page.count("<li>") >= len(bad) and "<b>bomb" not in page and "&lt;b&gt;bomb.zip: " in page
    assert [path.name for path in (tmp_path / "site" / "bundles").iterdir()] == [
        f"{verify_bundle(DATA / 'failures.zip').digest}.zip"
    ]
    out = capsys.readouterr().out
    assert out.count("refused: ") == len(bad) and str(tmp_path / "site") in "".join(out.split("\n"))
    assert "update this one" in out.replace("\n", " ")


def test_without_any_bundle_that_can_be_read_nothing_is_written(tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_text("hello")
    assert main(["leaderboard", str(tmp_path / "a.zip"), "--html", str(tmp_path / "site")]) == 65
    assert main(["leaderboard", str(tmp_path / "absent.zip"), "--html", str(tmp_path / "site")]) == 65
    assert not (tmp_path / "site").exists()
