"""Runs that version 1 wrote are read for ever, and every field of them says what docs/format.md says.

The files in ``tests/data/format-1`` were written by the commands below and are never written again:

    ilf-bench run tiny-text --methods full,steps:8,ilf:steps=6,deepcache:interval=2,steps:8+spacing:1.5 --samples 4 \\
        --metrics fid,clip_score,psnr --rounds 2 --batches 2,1 --set batch=4
    ilf-bench run tiny-text --plugin failing.py --methods full,broken,hungry --samples 4 --metrics psnr,unmeasured --rounds 2 \\
        --batches 2,1 --set batch=4

Both runs as bundles with images and in a history, where the first has a tag and the second is set aside; the first also exported.
"""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import sqlite3
import zipfile
from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.history.bundle import extract_bundle, verify_bundle
from harness.history.export import import_history
from harness.history.store import History, run_id
from harness.paths import ROOT
from harness.results import Failure, Fault, MethodPart, MethodRecord, Score, TimingSample
from harness.storage.layout import slug
from harness.storage.records import FORMAT, Run, pieces_of, read_json, read_run, write_json

DATA = ROOT / "tests" / "data" / "format-1"
COMPLETE, FAILURES = "complete", "failures"
IDS = {COMPLETE: "ebb2632a9a0dd3e14a7b08df23e6702c", FAILURES: "9b465e65eed42f7f1d6d7f5ab1b7b72c"}
DIGESTS = {
    COMPLETE: "e5a1d9e9df3d589b626e49b7c3054d368dd485582b877312a39aebbefb35580c",
    FAILURES: "215692f8bf3ddd92810da4d2d6d398f59dba408e47d31861f8867063f192bf21",
}
FIELDS = {  # of version 1: another field, or one less, is version 2
    MethodRecord: "label spec kind steps predicted_block_evaluations block_evaluations extra_parameters training_s calibration_s"
    " solver spacing timesteps parts identity",
    MethodPart: "name kind options plugin plugin_digest",
    Score: "method metric title unit direction tiny value n fingerprint influence per_image note",
    Failure: "method metric reason",
    TimingSample: "method round batch latency_s text_s denoise_s decode_s peak_memory_bytes compile_s clock_mhz temperature_c"
    " power_w throttled cpu_s copy_s energy_j reserved_bytes text_bytes denoise_bytes decode_bytes text_apart",
    Fault: "stage method start stop batch reason",
}
LABELS = ["full", "8 steps", "ilf(6 steps)", "deepcache(interval=2)", "8 steps + spacing(1.5)"]


class Plain:
    """A run as JSON, NumPy and zipfile read it, by nothing of ours but the page."""

    def __init__(self, name: str) -> None:
        with zipfile.ZipFile(DATA / f"{name}.zip") as archive:
            self.files = {entry: archive.read(entry) for entry in archive.namelist()}

    def json(self, name: str) -> Any:
        """The content of a record without its digest, which is checked."""
        content = json.loads(self.files[name])
        seal = content.pop("sha256")
        assert hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest() == seal
        return content["content"] if content.keys() == {"content"} else content

    def array(self, name: str) -> Any:
        """An array."""
        return np.load(io.BytesIO(self.files[name]), allow_pickle=False)

    def named(self, beginning: str, end: str = ".json") -> list[str]:
        """The files of one kind, sorted."""
        return sorted(name for name in self.files if name.startswith(beginning) and name.endswith(end))


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Both runs, unpacked by the product, which holds every file against the bundle's digest."""
    out = tmp_path_factory.mktemp("format-1")
    for name, digest in DIGESTS.items():
        assert not extract_bundle(DATA / f"{name}.zip", out / name, digest).findings
    return {name: out / name for name in DIGESTS}


@pytest.fixture(params=[COMPLETE, FAILURES])
def both(request: pytest.FixtureRequest, folders: Mapping[str, Path]) -> tuple[Plain, Run]:
    """One of them, read by the test and by the product."""
    return Plain(request.param), read_run(folders[request.param])


def test_the_records_of_version_1_have_these_fields_and_no_others() -> None:
    assert FORMAT == 1
    assert {kind: [field.name for field in fields(kind)] for kind in FIELDS} == {k: v.split() for k, v in FIELDS.items()}  # type: ignore[arg-type]


@pytest.mark.parametrize("name", [COMPLETE, FAILURES])
def test_bundles_are_intact_and_runs_keep_their_ids(name: str, folders: Mapping[str, Path]) -> None:
    verified = verify_bundle(DATA / f"{name}.zip")
    assert (verified.digest, verified.findings) == (DIGESTS[name], ())
    assert run_id(read_run(folders[name])) == IDS[name] == json.loads(Plain(name).files["bundle.json"])["run_id"]
    assert read_run(folders[name]).complete == (name == COMPLETE)


def test_every_field_of_every_record_is_read_as_it_was_written(both: tuple[Plain, Run]) -> None:
    plain, run = both
    assert (run.spec, run.environment) == (plain.json("spec.json"), plain.json("environment.json"))
    assert plain.json("spec.json")["method_labels"] == list(run.spec["method_labels"])
    for record in run.described.values():
        written = plain.json(f"methods/{slug(record.label)}.json")
        reason = written.pop("reason", "")
        assert json.loads(json.dumps(asdict(record))) == written
        assert (reason != "") == (record.label in {failure.method for failure in run.failed_methods})
    calls = [call for name in plain.named("timing/") for call in plain.json(name)]
    main, other = run.spec["timing"]["batch"], set(run.spec["timing"]["batches"]) - {run.spec["timing"]["batch"]}
    assert [asdict(call) for call in run.timings] == [call for call in calls if call["batch"] not in other]
    assert [asdict(call) for call in run.other_batches] == [call for call in calls if call["batch"] in other] != [] and main == 2
    assert [asdict(call) for call in run.warmups] == plain.json("warmup.json")
    assert [asdict(fault) for fault in run.faults] == [plain.json(name) for name in plain.named("faults/")]
    assert dict(run.plugins) == {name: plain.files[name].decode() for name in plain.named("plugins/", ".py")}
    assert dict(run.measurements) == {name: plain.json(name) for name in plain.named("measurements/")}
    manifests = plain.named("samples/", "manifest.json")
    assert dict(run.samples) == {name: hashlib.sha256(plain.files[name]).hexdigest() for name in manifests}
    if run.complete:
        assert run.finished == {k: v for k, v in plain.json("run.json").items() if k != "format"}


@pytest.mark.parametrize("kind", ["scores", "controls"])
def test_every_score_and_its_arrays(both: tuple[Plain, Run], kind: str) -> None:
    plain, run = both
    found, names = getattr(run, kind), plain.named(f"{kind}/")
    assert len(found) == len(names) > 0
    for (label, metric), score in found.items():
        written = plain.json(name := f"{kind}/{slug(label)}/{metric}.json")
        digests, own = written.pop("digests", {}), written.pop("per_image", None)
        if isinstance(score, Failure):
            assert asdict(score) == written
            continue
        influence = plain.array(name.replace(".json", ".npy"))
        per_image = plain.array(f"{name[:-5]}.per_image.npy") if own == "own" else influence
        np.testing.assert_array_equal(score.influence, influence)
        np.testing.assert_equal(score.per_image, None if own == "none" else per_image)
        assert {k: v for k, v in asdict(score).items() if k not in ("influence", "per_image")} == written
        assert influence.shape == (score.n,) and influence.mean() == pytest.approx(score.value)
        assert digests.keys() == ({"influence", "per_image"} if own == "own" else {"influence"})


def test_the_fields_mean_what_the_page_says(both: tuple[Plain, Run]) -> None:
    plain, run = both
    for call in (*run.timings, *run.other_batches, *run.warmups):
        stages = call.text_s + call.denoise_s + call.decode_s + call.copy_s
        assert call.latency_s == pytest.approx(stages, rel=0.1)
        assert call.cpu_s is not None and (call.round < 0) == (call in run.warmups)
    for record in run.methods:
        folder = f"samples/{slug(record.label)}"
        receipts = [plain.json(name) for name in plain.named(f"{folder}/chunk-")]
        samples = [sample for receipt in receipts for sample in receipt["samples"]]
        assert record.block_evaluations == sum(receipt["block_evaluations"] for receipt in receipts) / len(samples)
        assert plain.json(f"{folder}/manifest.json")["samples"] == samples and len(samples) == run.spec["samples"] == 4
        for number, sample in enumerate(samples):
            image = plain.files[f"{folder}/{sample['file']}"]
            assert sample["index"] == number and sample["sha256"] == hashlib.sha256(image).hexdigest()
    for name, record in run.measurements.items():
        stored = plain.array(name.replace(".json", ".npy"))
        assert (stored.dtype.name, len(stored)) == ("float32", 4) and record["digest"]


def test_single_records_in_full(folders: Mapping[str, Path]) -> None:
    run, failed = (read_run(folders[name]) for name in (COMPLETE, FAILURES))
    assert [record.label for record in run.methods] == LABELS == run.spec["method_labels"]
    assert [record.kind for record in run.methods] == ["full", "fewer steps", "learned", "less work per step", "composition"]
    assert [record.block_evaluations for record in run.methods] == [480, 192, 156, 320, 192]
    ilf = run.records["ilf(6 steps)"]
    assert (ilf.spec, ilf.steps, ilf.solver, ilf.spacing) == ("ilf:steps=6", 6, "bespoke", "ilf")
    assert ilf.timesteps == (999, 678, 476, 322, 176, 65) and ilf.extra_parameters == 499_200
    assert ilf.training_s == pytest.approx(10_834.85) and ilf.calibration_s is None
    options = {"checkpoint": None, "feedback": None, "guidance_distilled": None, "steps": 6}
    assert ilf.parts == (MethodPart("ilf", "learned", options),)
    words = {"code", "plugin", "packages", "settings", "model", "files", "calibrations"}
    assert ilf.identity.keys() == words and ilf.identity["model"] == "8f9aba4c0bd8a0a8"
    score = run.scores[ilf.label, "psnr"]
    assert isinstance(score, Score) and (score.title, score.unit, score.direction) == ("PSNR to the full run", "dB", "higher")
    assert (score.tiny, score.n, score.note) == (False, 4, "") and score.value == pytest.approx(35.3467, abs=1e-4)
    assert run.scores["full", "fid"] == Failure(
        "full", "fid", "FID (tiny): expected at least 48 images; got 4; remedy: raise the sample count"
    )
    assert failed.failed_methods == (Failure("broken", "", "no such block (generate broken, samples 0 to 3)"),)
    assert failed.faults == (Fault("generate", "hungry", 0, 4, 1, "out of memory at 4 images at a time"),)
    assert failed.scores["hungry", "timing"] == Failure("hungry", "timing", "MemoryError: out of memory")
    assert failed.planned[0].label == "broken" and failed.planned[0].block_evaluations is None
    assert failed.records["hungry"].parts[0].plugin == "failing.py"
    assert list(failed.plugins.values()) == [(DATA / "failing.py").read_text()]


def history(folder: Path, version: int = FORMAT) -> Path:
    """A copy of the history; the original is not to be touched."""
    shutil.copy(DATA / "history.sqlite", path := folder / "history.sqlite")
    with sqlite3.connect(path) as database:
        database.execute(f"PRAGMA user_version = {version}")
    return path


def test_the_history_and_the_exports_hold_the_same_runs(tmp_path: Path, folders: Mapping[str, Path]) -> None:
    stored = History(history(tmp_path))
    assert [entry.run_id for entry in stored.runs()] == [IDS[COMPLETE]]
    assert stored.runs()[0].tags == ("first",)
    run = read_run(folders[COMPLETE])
    for number, name in enumerate(("export.json", "export.parquet")):
        other = History(tmp_path / f"{number}.sqlite")
        import_history(other, DATA / name)
        for each in (stored, other):
            kept = each.load(IDS[COMPLETE])
            assert run_id(kept) == IDS[COMPLETE] and pieces_of(kept).keys() == pieces_of(run).keys()


def test_the_last_draft_is_read_and_keeps_its_number(tmp_path: Path, folders: Mapping[str, Path]) -> None:
    """Version 0 had the same fields; its runs have ids of their own, because the number is part of what they say."""
    shutil.copytree(folders[COMPLETE], run := tmp_path / "run")
    for name in ("spec.json", "run.json"):
        write_json(run / name, read_json(run / name) | {"format": 0})
    read = read_run(run)
    assert read.spec["format"] == 0 and read.methods == read_run(folders[COMPLETE]).methods
    assert pieces_of(read)["run.json"].content["format"] == 0 and run_id(read) != IDS[COMPLETE]
    path = history(tmp_path, version=0)
    kept = History(path)
    kept.append(read)
    assert run_id(kept.load(run_id(read))) == run_id(read)
    with sqlite3.connect(path) as database:
        assert database.execute("PRAGMA user_version").fetchone() == (1,)
