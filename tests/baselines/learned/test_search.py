"""The search against brute force and a closed form, and what it leaves on disk."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from baselines.learned.ecad import Ecad
from baselines.learned.search import Search, SearchSettings, build_schedules, crowding, dominates, ranks
from harness.sampling.pipeline import Pipeline
from harness.storage.records import read_json
from tests.conftest import PROMPTS

SMALL = SearchSettings(population=6, generations=2, images=2)


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=1, max_size=12))
def test_rank_is_the_longest_chain_of_better_ones(points: list[tuple[float, float]]) -> None:
    def chain(i: int) -> int:
        return max((1 + chain(j) for j in range(len(points)) if dominates(points[j], points[i])), default=0)

    assert ranks(points) == [chain(i) for i in range(len(points))]


def test_crowding_of_four_points_on_a_line() -> None:
    assert crowding([(0, 3), (1, 2), (3, 0), (2, 1)]) == pytest.approx([np.inf, 4 / 3, np.inf, 4 / 3])


def test_a_search_is_resumed_to_the_same_front_and_charges_its_cost(pipeline: Pipeline, tmp_path: Path) -> None:
    build_schedules(SMALL, pipeline, PROMPTS, tmp_path / "a", tmp_path / "store.json")
    stored = read_json(tmp_path / "a" / "schedules.json")
    costs, errors = ([found[key] for found in stored["front"]] for key in ("cost", "error"))
    assert costs == sorted(costs) and errors == sorted(errors, reverse=True) and costs[0] < 0.8
    assert stored["search"]["images"] == 2 * stored["search"]["candidates"] > 0 and stored["search"]["seconds"] > 0
    method = Ecad(costs[0], str(tmp_path / "a"))
    assert method.plan(pipeline.plan()).block_evaluations == pytest.approx(costs[0] * pipeline.plan().block_evaluations)
    build_schedules(SMALL, pipeline, PROMPTS, tmp_path / "b", tmp_path / "store.json")
    assert read_json(tmp_path / "b" / "schedules.json") == stored


def test_the_first_step_is_always_full(pipeline: Pipeline, tmp_path: Path) -> None:
    search = Search(pipeline, PROMPTS, SMALL, tmp_path / "store.json")
    genomes = search.first()
    assert not any(genome[0].any() for genome in [*genomes, *search._children(genomes)])
