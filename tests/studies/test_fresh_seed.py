"""The study on a fresh seed: which rows are compared, and by how much less error."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from harness.config.spec import load_spec, preset_names
from studies import converged, fresh_seed
from studies.fresh_seed import COMPARED, COUNTS, SEED, UNTRAINED, Row, next_rival
from studies.loop_page import rows


def row(name: str, blocks: float, *errors: float) -> Row:
    return Row(name, blocks, {name: np.array(errors) for name in COMPARED})


def test_the_rival_is_the_best_of_the_next_more_expensive_ones() -> None:
    rivals = [row("cheap", 100, 9, 9), row("weak", 120, 5, 5), row("strong", 120, 4, 4), row("costly", 200, 1, 1)]
    assert next_rival(row("ours", 110, 1, 1), rivals) is rivals[2]
    assert next_rival(row("ours", 120, 1, 1), rivals) is rivals[2]
    assert next_rival(row("ours", 201, 1, 1), rivals) is None


def test_less_error_is_a_share_of_the_rivals_mean_paired_over_images() -> None:
    ours, rival = row("ours", 1, 1.0, 3.0, 2.0, 2.0), row("rival", 1, 2.0, 4.0, 3.0, 3.0)
    for error in COMPARED:
        found = ours.lower(rival, error)
        assert found.value == pytest.approx(1 / 3) and found.low == pytest.approx(1 / 3), "each image's error is lower by one"


def test_no_preset_and_no_other_study_uses_the_seed() -> None:
    seeds = {load_spec(preset).seed for preset in preset_names()} | {row["seed"] + converged.EVALUATION_SEED for row in rows()}
    assert converged.EVALUATION_SEED + SEED not in seeds


def test_rows_are_judged_and_paired(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(converged, "EVALUATED", 3)
    monkeypatch.setitem(COUNTS, "class", (6,))
    monkeypatch.setitem(UNTRAINED, "class", (("dpm++", 1.5, (6, 7)),))
    text = fresh_seed.section("class", tmp_path)
    cells = {line.split(" | ")[0].strip("| "): line.strip("| ").split(" | ") for line in text.splitlines()}
    assert float(cells["ilf(6 steps)"][3]) < float(cells["7 steps + spacing(1.5)"][3]) < float(cells["6 steps + spacing(1.5)"][3])
    assert cells["ilf(6 steps) (156)"][1] == "20 steps (480)", "its last pair"
    assert "| ilf(6 steps) (156) | 7 steps + spacing(1.5) (168) |" in text and "ilf-adapter(6 steps) (150)" in text
