"""States of a training: what comes back is what was written, for the purpose that it was written for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from harness.errors import ArtifactError
from harness.training.states import content_digest, kept, read_state, write_state


def some_state() -> dict[str, Any]:
    tensors = {"half": torch.arange(6).bfloat16().reshape(2, 3), "flag": torch.tensor([True, False]), "one": torch.tensor(1.5)}
    return {"tensors": tensors, "none": torch.zeros(0), "curve": [(1, 0.5)], "step": 3}


def test_a_state_comes_back(tmp_path: Path) -> None:
    write_state(tmp_path / "deep" / "s.pt", some_state())
    found = read_state(tmp_path / "deep" / "s.pt")
    assert content_digest(found) == content_digest(some_state()) and found["tensors"]["half"].dtype == torch.bfloat16
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["s.pt"]


def test_the_digest_sees_every_part() -> None:
    whole = content_digest(some_state())
    for name, value in (("half", torch.ones(2, 3).bfloat16()), ("flag", torch.tensor([True, True])), ("one", torch.tensor(1.25))):
        state = some_state()
        state["tensors"][name] = value
        assert content_digest(state) != whole
    assert content_digest(some_state() | {"step": 4}) != whole


@pytest.mark.parametrize("cut", [0, 10, 200, -1])
def test_a_cut_file_is_named(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "s.pt"
    write_state(path, some_state())
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(ArtifactError, match=r"s\.pt.*delete that file"):
        read_state(path)


def test_altered_numbers_are_found(tmp_path: Path) -> None:
    path = tmp_path / "s.pt"
    write_state(path, some_state())
    content = bytearray(path.read_bytes())
    place = content.index(torch.tensor(1.5).numpy().tobytes())
    content[place] ^= 1
    path.write_bytes(content)
    with pytest.raises(ArtifactError, match=r"s\.pt"):
        read_state(path)


def test_what_is_kept_is_made_once_and_refused_for_another_purpose(tmp_path: Path) -> None:
    path = tmp_path / "s.pt"
    first = kept(path, "a", some_state)
    assert content_digest(kept(path, "a", lambda: pytest.fail("made twice"))) == content_digest(first)
    with pytest.raises(ArtifactError, match="mend it"):
        kept(path, "b", some_state, remedy="mend it")
