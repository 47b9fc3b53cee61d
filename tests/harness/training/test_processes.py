"""Several processes of one training: each on its device before it loads, and work that they share."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

import ilf_bench.training
from harness.errors import ArtifactError, UsageError
from harness.training import processes
from harness.training.processes import kept_together, own_device


@dataclass
class Ranks:
    """Threads that stand for the processes of a training; each call of the instance is the state of the caller's."""

    count: int
    here: threading.local = field(default_factory=threading.local)
    told: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.barrier = threading.Barrier(self.count, timeout=20)

    def __call__(self, **settings: Any) -> Ranks:
        self.told |= settings
        return self

    @property
    def num_processes(self) -> int:
        return self.count

    @property
    def process_index(self) -> int:
        return int(self.here.index)

    @property
    def device(self) -> torch.device:
        return torch.device("cuda", self.process_index)

    @property
    def is_main_process(self) -> bool:
        return self.process_index == 0

    def wait_for_everyone(self) -> None:
        self.barrier.wait()

    def run(self, work: Any) -> list[Any]:
        """What ``work`` gives in every process."""
        found: list[Any] = [None] * self.count

        def one(index: int) -> None:
            self.here.index = index
            found[index] = work()

        threads = [threading.Thread(target=one, args=(index,)) for index in range(self.count)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        return found


@pytest.mark.parametrize("count", [1, 2, 3])
def test_pieces_are_shared_and_joined_alike(count: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ranks, made = Ranks(count), []
    monkeypatch.setattr(processes, "PartialState", ranks)

    def make(piece: int) -> dict[str, Any]:
        made.append((ranks.process_index, piece))
        return {"rows": torch.full((2,), float(piece))}

    def join(parts: Any) -> dict[str, Any]:
        return {"rows": torch.cat([part["rows"] for part in parts])}

    found = ranks.run(lambda: kept_together(tmp_path / "x.pt", "key", "abcde", make, join))
    assert sorted(made) == sorted((piece % count, piece) for piece in range(5)), "each piece once, by turns"
    assert all(each["rows"].tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4] for each in found)
    assert [path.name for path in tmp_path.iterdir()] == ["x.pt"]
    again = ranks.run(lambda: kept_together(tmp_path / "x.pt", "key", "abcde", lambda piece: pytest.fail("again"), join))
    assert all(torch.equal(each["rows"], found[0]["rows"]) for each in again)


def test_a_killed_recording_goes_on_after_its_last_piece(tmp_path: Path) -> None:
    made: list[int] = []

    def make(piece: int) -> dict[str, Any]:
        if piece == 2 and len(made) == 2:
            raise KeyboardInterrupt
        made.append(piece)
        return {"piece": piece}

    for _ in range(2):
        with pytest.MonkeyPatch.context():
            try:
                whole = kept_together(tmp_path / "x.pt", "key", "abc", make, lambda parts: {"all": [p["piece"] for p in parts]})
            except KeyboardInterrupt:
                made.append(-1)
    assert made == [0, 1, -1, 2] and whole["all"] == [0, 1, 2]
    with pytest.raises(ArtifactError, match="made for other"):
        kept_together(tmp_path / "x.pt", "other", "abc", make, lambda parts: {})


def test_a_recording_begun_in_other_pieces_takes_none_of_those(tmp_path: Path) -> None:
    """Of another batch: rows 0 to 3 are in both, and each row is kept once."""

    def killed(piece: int) -> dict[str, Any]:
        if piece:
            raise KeyboardInterrupt
        return {"rows": torch.arange(4)}

    def join(parts: Any) -> dict[str, Any]:
        return {"rows": torch.cat([part["rows"] for part in parts])}

    with pytest.raises(KeyboardInterrupt):
        kept_together(tmp_path / "x.pt", "key", ["0-to-4", "4-to-6"], killed, join)
    whole = kept_together(tmp_path / "x.pt", "key", ["0-to-3", "3-to-6"], lambda n: {"rows": torch.arange(3) + 3 * n}, join)
    assert whole["rows"].tolist() == [0, 1, 2, 3, 4, 5] and [path.name for path in tmp_path.iterdir()] == ["x.pt"]


@pytest.mark.parametrize("device", ["auto", "cuda"])
def test_every_process_has_a_device_of_its_own(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    ranks = Ranks(2)
    monkeypatch.setattr(processes, "PartialState", ranks)
    assert ranks.run(lambda: own_device(device)) == ["cuda:0", "cuda:1"]
    assert ranks.told["timeout"].total_seconds() > 3600, "a teacher's recording outlasts NCCL's ten minutes"


def test_several_processes_on_one_gpu_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    ranks = Ranks(2)
    monkeypatch.setattr(processes, "PartialState", ranks)
    ranks.here.index = 0
    with pytest.raises(UsageError, match="for each of several processes"):
        own_device("cuda:0")


def test_the_device_is_known_before_the_model_is_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Under `accelerate launch` a model loaded before lies on the first GPU, whichever process loads it."""
    ranks, loaded = Ranks(2), []
    monkeypatch.setattr(processes, "PartialState", ranks)

    class Stop(Exception):
        pass

    def load(spec: Any) -> Any:
        loaded.append(spec.device)
        raise Stop

    monkeypatch.setattr(ilf_bench.training, "load_pipeline", load)
    ranks.here.index = 1
    with pytest.raises(Stop):
        ilf_bench.training.train("tiny-text", {}, tmp_path, Console())
    assert loaded == ["cuda:1"]


def test_pieces_are_one_stage_of_progress(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kept_together(tmp_path / "x.pt", "key", "abc", lambda piece: {"piece": piece}, lambda parts: {"all": parts}, stage="pieces")
    assert [line for line in capsys.readouterr().out.splitlines() if line.startswith("pieces")] == ["pieces: 3 of 3 in 0:00:00"]
