"""Files that come with the installation are found; a name that no file can have is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.errors import UsageError
from harness.paths import ROOT, locate


def test_the_root_holds_presets_and_weights() -> None:
    assert (ROOT / "presets" / "tiny-text.yaml").is_file() and (ROOT / "zoo").is_dir()


def test_a_file_here_comes_before_one_of_the_installation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert locate("presets/tiny-text.yaml") == ROOT / "presets" / "tiny-text.yaml"
    (tmp_path / "presets").mkdir()
    (tmp_path / "presets" / "tiny-text.yaml").write_text("mine")
    assert locate("presets/tiny-text.yaml").read_text() == "mine"
    assert locate(str(tmp_path / "nothing")) == tmp_path / "nothing"


def test_a_name_that_no_file_can_have_is_refused() -> None:
    with pytest.raises(UsageError, match="name of a file"):
        locate("x" * 5000)
