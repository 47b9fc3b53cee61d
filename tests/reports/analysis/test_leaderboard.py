"""Which rows of different runs are ranked together, and how."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.results import Score
from harness.statistics import Interval
from harness.storage.records import Run
from reports.analysis.leaderboard import SPEED, Board, boards, entries, source_of
from tests.reports.synthetic import synthetic_run

METRIC = (("clip_score", "CLIP score", "higher"),)
ENVIRONMENT = {"device": "cpu", "device_name": "One", "machine_key": "m1", "prompts": {"digest": "p1"}}


def one(path: Path, spec: dict[str, Any] | None = None, model: str = "w1", **environment: Any) -> Run:
    """A run of six methods whose model, prompts and machine are known."""
    run = synthetic_run(path, methods=6, n=40, rounds=8, metrics=METRIC)
    methods = tuple(replace(record, identity={"model": model}) for record in run.methods)
    return replace(run, methods=methods, spec={**run.spec, **(spec or {})}, environment={**ENVIRONMENT, **environment})


def made(*runs: Run) -> tuple[Board, ...]:
    """The boards of some runs, each from a bundle of its own."""
    named = [(run, source_of(run, f"{number:064x}", f"bundles/{number}.zip", str(number))) for number, run in enumerate(runs)]
    return boards([entry for run, source in named for entry in entries(run, source)])


def test_runs_of_one_experiment_share_every_table(tmp_path: Path) -> None:
    (board,) = made(one(tmp_path), one(tmp_path, {"seed": 7, "pipeline": "elsewhere"}))
    assert [(ranking.measure.name, len(ranking.rows)) for ranking in board.rankings] == [(SPEED, 12), ("clip_score", 12)]
    assert {row.source.run_id for _, row in board.rankings[0].rows} == {"0", "1"}


@pytest.mark.parametrize(
    "other",
    [
        {"model": "w2"},
        {"machine_key": "m2"},
        {"device_name": "Two"},
        {"prompts": {"digest": "p2"}},
        {"machine_key": None},
        {"prompts": None},
        {"spec": {"samples": 41}},
        {"spec": {"precision": "bf16"}},
        {"spec": {"steps": 21}},
        {"spec": {"solver": "euler"}},
        {"spec": {"guidance": 4.0}},
        {"spec": {"compile": True}},
        {"spec": {"timing": {"rounds": 8, "batch": 8, "warmup": 1}}},
    ],
)
def test_another_experiment_has_a_board_of_its_own(tmp_path: Path, other: dict[str, Any]) -> None:
    found = made(one(tmp_path), one(tmp_path, **other))
    assert len(found) == 2 == len({board.title for board in found})
    assert all(len({row.source.run_id for ranking in board.rankings for _, row in ranking.rows}) == 1 for board in found)


def test_ranks_never_fall_down_a_table(tmp_path: Path) -> None:
    """A row whose interval reaches above all others shares the first rank, and stands with it, though its value is the least."""
    run = one(tmp_path)
    found = [entry for entry in entries(run, source_of(run, "0" * 64, "a.zip", "a")) if entry.measure.name == SPEED]
    slowest = min(found, key=lambda entry: entry.standing.value.value)
    wide = replace(slowest.standing, value=Interval(0.5, 0.01, 99.0))
    (board,) = boards([entry if entry is not slowest else replace(entry, standing=wide) for entry in found])
    rows = board.rankings[0].rows
    assert [rank for rank, _ in rows] == sorted(rank for rank, _ in rows) and rows[-1][0] > 1
    assert next(rank for rank, row in rows if row.method == wide.method) == 1


def test_what_is_not_recorded_agrees_with_nothing(tmp_path: Path) -> None:
    unknown = one(tmp_path, machine_key=None, prompts=None)
    assert len(made(unknown, unknown)) == 2


@pytest.mark.parametrize("other", [{"fingerprint": {"w": "2"}}, {"tiny": True}, {"title": "Another"}])
def test_scores_of_another_network_have_a_ranking_of_their_own(tmp_path: Path, other: dict[str, Any]) -> None:
    run = one(tmp_path)
    scores = {key: replace(score, **other) for key, score in run.scores.items() if isinstance(score, Score)}
    (board,) = made(run, replace(run, scores=scores))
    assert [len(ranking.rows) for ranking in board.rankings] == [12, 6, 6]


@pytest.mark.parametrize("direction", ["higher", "lower"])
def test_rows_share_a_rank_unless_their_intervals_lie_apart(tmp_path: Path, direction: str) -> None:
    run = one(tmp_path)
    noise = np.random.default_rng(0).normal(size=40)
    noise -= noise.mean()
    levels = dict(zip((record.label for record in run.methods), (0.0, 0.1, 5.0, 5.1, 9.0, 20.0), strict=True))
    scores = {}
    for label, level in levels.items():
        score = run.scores[label, "clip_score"]
        assert isinstance(score, Score)
        scores[label, "clip_score"] = replace(score, influence=noise + level, value=level, direction=direction)  # type: ignore[arg-type]
    (board,) = made(replace(run, scores=scores))
    ranks = {row.method: rank for rank, row in board.rankings[1].rows}
    expected = [5, 5, 3, 3, 2, 1] if direction == "higher" else [1, 1, 3, 3, 5, 6]
    assert [ranks[label] for label in levels] == expected
    assert [rank for rank, _ in board.rankings[1].rows] == sorted(expected)
