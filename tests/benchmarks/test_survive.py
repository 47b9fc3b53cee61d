"""A short version of benchmarks/campaign.py, and what its full version and the fuzzer have found."""

from __future__ import annotations

import io
import os
import random
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from tqdm.auto import tqdm

from benchmarks.campaign import SCENARIOS, resumed_run
from benchmarks.trials import Bench, call, ended, forked, run_folder, write_preset
from harness.errors import ArtifactError, UsageError
from harness.models.checksums import SETTINGS, SUMS, check_sums, write_sums
from harness.storage.arrays import read_array, write_array
from harness.storage.files import file_digest
from harness.storage.layout import slug
from harness.storage.locations import inside
from harness.storage.locks import held_alone
from harness.storage.records import read_json, read_run, write_json
from reports.analysis.select import samples_of
from zoo.recipes.seal import ZOO, sealed_folders


@pytest.fixture(scope="module")
def bench(folders: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """An undisturbed run to compare with."""
    work = tmp_path_factory.mktemp("campaign")
    made = Bench(write_preset(work, folders["pixart"]), work, random.Random(7))
    made.measure()
    return made


@pytest.mark.parametrize(
    "name", ["kill-run", "kill-training", "kill-history", "interrupt", "twice", "disk", "clock", "edit-plugin"]
)
def test_one_trial_of_each_scenario(bench: Bench, name: str) -> None:
    answer = SCENARIOS[name][0](bench, 0)
    assert "identical" in answer or answer.startswith("skipped")


def test_a_killed_process_leaves_no_lock_to_those_forked_later(tmp_path: Path) -> None:
    log = tmp_path / "log.txt"

    def hold() -> None:
        with tqdm.get_lock():
            print("held", flush=True)
            time.sleep(60)

    list(tqdm(range(1), disable=False, file=io.StringIO()))  # makes the lock
    pid = forked(hold, log)
    while not log.exists() or "held" not in log.read_text():
        time.sleep(0.01)
    os.kill(pid, signal.SIGKILL)
    ended(pid)
    assert ended(forked(lambda: list(tqdm(range(1))), log), limit_s=20) == 0


@pytest.fixture(scope="module")
def finished(bench: Bench) -> Iterator[Path]:
    """A finished run, damaged and repaired again by one test after another."""
    out = bench.out()
    assert call(bench.run(out), out)[0] == 0
    yield out


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_flipped_bits_are_found_and_only_what_they_hit_is_made_again(bench: Bench, finished: Path) -> None:
    folder, names = run_folder(finished), {"full": slug("full"), "two": slug("2 steps")}
    for name in (
        "samples/{full}/000005.png",
        "samples/{full}/chunk-000008.json",
        "samples/{full}/manifest.json",
        "methods/{full}.json",
        "measurements/{two}/ssim.npy",
        "scores/{two}/psnr.npy",
        "scores/{full}/psnr.json",
        "timing/001.json",
        "spec.json",
        "run.json",
    ):
        flip(folder / name.format(**names))
    untouched = folder / "samples" / names["two"] / "000003.png"
    before = untouched.stat().st_mtime_ns
    assert resumed_run(bench, finished) == "identical"
    assert untouched.stat().st_mtime_ns == before


def test_a_damaged_description_of_the_machine_is_named(bench: Bench, finished: Path) -> None:
    flip(run_folder(finished) / "environment.json")
    assert resumed_run(bench, finished) == "environment.json named, removed, identical"


def test_altered_weights_are_found(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    check_sums(tmp_path)  # not sealed, not checked
    write_sums(tmp_path)
    check_sums(tmp_path)
    flip(tmp_path / "model.safetensors")
    with pytest.raises(ArtifactError, match=r"model\.safetensors.*SHA256SUMS"):
        check_sums(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(ArtifactError, match="no such file"):
        check_sums(tmp_path)


def test_the_bundled_weights_are_sealed() -> None:
    """After a meant change: python -m zoo.recipes.seal."""
    folders = sealed_folders(ZOO)
    assert {path.parent for path in ZOO.rglob("*.safetensors")} < set(folders)
    for folder in folders:
        listed = {line.split("  ")[1] for line in (folder / SUMS).read_text().splitlines()}
        decides = {path.name for path in folder.iterdir() if path.suffix == ".safetensors" or path.name in SETTINGS}
        assert decides == listed, folder
        check_sums(folder)


def test_an_edited_record_is_refused_and_named(tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    write_json(path, {"value": 1.5, "rows": [1, 2]})
    assert read_json(path) == {"value": 1.5, "rows": [1, 2]}
    path.write_text(path.read_text().replace("1.5", "1.6"))
    with pytest.raises(ArtifactError, match=r"record\.json.*digest"):
        read_json(path)
    write_json(path, [1, 2])
    assert read_json(path) == [1, 2]


def test_an_array_of_another_digest_is_refused(tmp_path: Path) -> None:
    digest = write_array(tmp_path / "a.npy", np.arange(4.0))
    assert read_array(tmp_path / "a.npy", digest).tolist() == [0, 1, 2, 3]
    write_array(tmp_path / "a.npy", np.arange(4.0) + 1)
    with pytest.raises(ArtifactError, match=r"a\.npy"):
        read_array(tmp_path / "a.npy", digest)
    np.save(tmp_path / "b.npy", np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(ArtifactError, match="an array of object"):
        read_array(tmp_path / "b.npy", file_digest(tmp_path / "b.npy"))


@pytest.mark.parametrize("name", ["../x.png", "/etc/passwd", "a/b", "..", "", "x\0y", "a\\b", 3, None])
def test_no_name_in_a_record_leads_out_of_its_folder(tmp_path: Path, name: object) -> None:
    with pytest.raises(ArtifactError, match="bare file name"):
        inside(tmp_path, name)
    assert inside(tmp_path, "000001.png") == tmp_path / "000001.png"


def test_a_manifest_that_leads_elsewhere_is_refused(bench: Bench, finished: Path) -> None:
    folder = run_folder(finished)
    path = folder / "samples" / slug("full") / "manifest.json"
    manifest = read_json(path)
    manifest["samples"][0]["file"] = "../../../secret.png"
    write_json(path, manifest)
    with pytest.raises(ArtifactError, match=r"manifest\.json; got samples\.0\.file"):
        samples_of(read_run(folder), "full")
    resumed_run(bench, finished)


def test_a_folder_is_held_by_one_process(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with held_alone(folder), pytest.raises(UsageError, match=r"process \d+ on .* at work"), held_alone(folder):
        pass
    with held_alone(folder):
        pass
