"""What is read is a regular file of a stated size; what is written follows no link; locks and new files cannot be prepared."""

from __future__ import annotations

import os
import threading
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from harness.config.prompts import load_prompts
from harness.config.spec import load_spec
from harness.errors import ArtifactError, HarnessError, UsageError
from harness.history.bundle import write_bundle
from harness.storage.files import RECORD_BYTES, read_small, remove_leftovers, replacing
from harness.storage.locks import held_alone
from harness.storage.records import read_json, read_run
from harness.training.states import write_state
from ilf_bench.cli import main
from metrics.published.spec import read_scorers
from metrics.reference import write_reference
from reports.analysis.published import read_published
from reports.render.build import build_report
from tests.reports.conftest import Fake, write_fake

SECRET = b"-----BEGIN PRIVATE KEY-----"
READERS: dict[str, Callable[[Path], object]] = {
    "preset": lambda path: load_spec(str(path)),
    "prompts": lambda path: load_prompts(str(path)),
    "scorers": read_scorers,
    "published numbers": read_published,
    "record": read_json,
}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    write_fake(tmp_path / "run", Fake(n=8, rounds=2))
    return tmp_path / "run"


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    path = tmp_path / "secret.txt"
    path.write_bytes(SECRET)
    return path


def within(seconds: float, work: Callable[[], object]) -> None:
    """Fail, instead of waiting for ever, where ``work`` blocks; re-raise what it raises."""
    raised: list[BaseException] = []

    def call() -> None:
        try:
            work()
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=call, daemon=True)
    thread.start()
    thread.join(seconds)
    assert not thread.is_alive(), f"it still waits after {seconds} s"
    if raised:
        raise raised[0]


@pytest.mark.parametrize("kind", READERS)
@pytest.mark.parametrize("what", ["fifo", "/dev/zero", "huge"])
def test_a_reader_takes_regular_files_of_a_stated_size(kind: str, what: str, tmp_path: Path) -> None:
    path = Path(what)
    if what == "fifo":
        os.mkfifo(path := tmp_path / "list.txt")
    if what == "huge":
        path = tmp_path / "list.txt"
        with path.open("wb") as file:
            file.truncate(2**34)  # sparse
    with pytest.raises(HarnessError):
        within(10, lambda: READERS[kind](path))


def test_what_is_read_is_at_most_as_large_as_was_said(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"12345")
    assert read_small(tmp_path / "a", 5) == b"12345"
    with pytest.raises(OSError, match="more than"):
        read_small(tmp_path / "a", 4)
    with pytest.raises(OSError, match="no regular file"):
        read_small(tmp_path)


def links(run: Path, secret: Path) -> dict[str, tuple[Path, Path]]:
    sample = next((run / "samples").iterdir())
    return {
        "report": (run / "report" / "index.html", secret),
        "folder of the report": (run / "report", secret.parent / "elsewhere"),
        "image": (sample / "000000.png", secret),
        "measurement": (run / "measurements" / "full" / "x.json", secret),
        "folder of scores": (run / "scores" / "more", secret.parent),
        "environment": (run / "environment.json", secret),
    }


@pytest.mark.parametrize("which", ["report", "folder of the report", "image", "measurement", "folder of scores", "environment"])
@pytest.mark.parametrize("work", [build_report, lambda run: write_bundle(run, run.parent / "b.zip", images=True), read_run])
def test_links_below_a_run_are_refused(which: str, work: Callable[[Path], object], run: Path, secret: Path) -> None:
    (secret.parent / "elsewhere").mkdir()
    place, target = links(run, secret)[which]
    place.parent.mkdir(parents=True, exist_ok=True)
    place.unlink(missing_ok=True)
    place.symlink_to(target)
    with pytest.raises(ArtifactError, match="a link"):
        work(run)
    assert secret.read_bytes() == SECRET and not list((secret.parent / "elsewhere").iterdir())
    assert not (run.parent / "b.zip").exists()


def test_a_fifo_below_a_run_is_refused(run: Path) -> None:
    os.mkfifo(run / "timing" / "999.json")
    with pytest.raises(ArtifactError, match="no plain file"):
        within(10, lambda: read_run(run))


def test_a_lock_that_is_a_link_truncates_nothing(tmp_path: Path, secret: Path) -> None:
    for name, make in (("soft", Path.symlink_to), ("hard", Path.hardlink_to)):
        (tmp_path / name).mkdir()
        make(tmp_path / name / ".lock", secret)
        with pytest.raises(UsageError, match="where a lock belongs"), held_alone(tmp_path / name):
            pass
    os.mkfifo(tmp_path / "pipe.lock")
    (tmp_path / "pipe").mkdir()
    (tmp_path / "pipe.lock").rename(tmp_path / "pipe" / ".lock")
    with pytest.raises(UsageError, match="where a lock belongs"):
        within(10, lambda: held_alone(tmp_path / "pipe").__enter__())
    assert secret.read_bytes() == SECRET


def test_a_held_folder_has_no_links(tmp_path: Path, secret: Path) -> None:
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "state.pt").symlink_to(secret)
    with pytest.raises(ArtifactError, match="a link"), held_alone(tmp_path / "work"):
        pass


def test_a_folder_that_is_held_is_no_link_itself(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "run").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ArtifactError, match="a link to"), held_alone(tmp_path / "run"):
        pass
    assert not list((tmp_path / "elsewhere").iterdir())


@pytest.mark.parametrize("name", ["paper", "thumbs"])
def test_a_folder_of_the_report_is_no_link(
    name: str, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("reports.render.build.is_inline", lambda sheet: False)  # thumbnails as files
    for folder in ("out", "elsewhere"):
        (tmp_path / folder).mkdir()
    (tmp_path / "out" / name).symlink_to(tmp_path / "elsewhere")
    assert main(["report", str(run), "--out", str(tmp_path / "out")]) == 65
    assert "a link to" in capsys.readouterr().err and not list((tmp_path / "elsewhere").iterdir())


def test_only_files_are_leftovers(tmp_path: Path) -> None:
    (tmp_path / ".x.tmp").mkdir()
    (tmp_path / ".x.tmp" / ".y.tmp").touch()
    remove_leftovers(tmp_path)
    assert [path.name for path in tmp_path.rglob("*")] == [".x.tmp"]


@pytest.mark.parametrize(
    "command",
    [
        ["export", "http://127.0.0.1:9/x.json"],
        ["export", "--track", "tensorboard:http://127.0.0.1:9/x"],
        ["history", "--html", "http://127.0.0.1:9/x.html"],
        ["bundle", "RUN", "s3://bucket/b.zip"],
        ["report", "RUN", "--out", "s3://bucket/report"],
    ],
    ids=lambda command: " ".join(command[:2]),
)
def test_a_url_becomes_no_folder(
    command: list[str], run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["history", "--add", str(run), "--out", str(tmp_path / "runs")]) == 0
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.iterdir())
    assert main([str(run) if word == "RUN" else word for word in command]) == 64
    assert "a path on this machine" in capsys.readouterr().err and sorted(tmp_path.iterdir()) == before


WRITERS: dict[str, Callable[[Path], object]] = {
    "state": lambda path: write_state(path, {"a": 1}),
    "reference": lambda path: write_reference(path, np.ones((2, 3), np.float32), {"extractor": "e", "data": "d"}),
}


@pytest.mark.parametrize("kind", WRITERS)
def test_no_temporary_name_can_be_foreseen(kind: str, tmp_path: Path, secret: Path) -> None:
    """Links are laid under every name that was ever used, and under the target's own."""
    target = tmp_path / "target.npz"
    names = [f"{target.name}.tmp", f".{target.name}.tmp", f".{target.name}.{os.getpid()}.tmp", target.name]
    for name in names:
        (tmp_path / name).symlink_to(secret)
    WRITERS[kind](target)
    assert secret.read_bytes() == SECRET and not target.is_symlink() and target.stat().st_size > 0


def test_a_bundle_is_written_under_no_foreseeable_name(run: Path, secret: Path) -> None:
    (run.parent / ".b.zip.tmp").symlink_to(secret)
    write_bundle(run, run.parent / "b.zip")
    assert secret.read_bytes() == SECRET


def test_a_file_that_could_not_be_written_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(zlib.error), replacing(tmp_path / "a") as file:
        file.write(b"half")
        raise zlib.error("no")
    assert not list(tmp_path.iterdir())


def test_the_bound_of_a_record_is_above_what_the_largest_has(tmp_path: Path) -> None:
    """A manifest of 50,000 images, the field's usual number, with captions of 100 letters."""
    from harness.storage.records import write_json

    rows = [{"index": i, "prompt": "x" * 100, "file": f"{i:06d}.png", "sha256": "0" * 64} for i in range(50_000)]
    write_json(tmp_path / "manifest.json", {"method": "full", "samples": rows})
    assert len(read_json(tmp_path / "manifest.json")["samples"]) == 50_000
    assert (tmp_path / "manifest.json").stat().st_size < RECORD_BYTES
