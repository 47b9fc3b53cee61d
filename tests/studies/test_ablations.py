"""The study of ILF's parts."""

from __future__ import annotations

from pathlib import Path

import pytest

from studies import ablations


def test_every_model_that_has_a_recipe_is_studied_and_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    studied = list[str]()
    monkeypatch.setattr(ablations, "study", lambda preset, work, console: studied.append(preset))
    monkeypatch.setattr(ablations, "section", lambda title, done, work: f"## {title}")
    monkeypatch.setattr(ablations, "put_sections", lambda page, sections: None)
    ablations.main(tmp_path, None)
    assert studied == list(ablations.RECIPES)
