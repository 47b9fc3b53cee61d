"""The tables of the ILF study, on a run with known numbers."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from harness.paths import ROOT
from harness.results import BASELINE, FloatArray, Score
from studies.study import SCORES, Study
from studies.study_tables import against_caches, duel, equal_cost, put_sections, second_pass, upfront_cost
from tests.records import method_record

COSTS = {
    BASELINE: 2400,
    "20 steps": 480,
    "5 steps": 120,
    "8 steps + spacing(1.5)": 192,
    "20 steps + near": 200,
    "20 steps + far": 250,
    "ilf(6 steps)": 156,
    "ilf(7 steps)": 182,
    "ilf(8 steps)": 208,
    "ilf-adapter(6 steps)": 150,
    "ilf-adapter(8 steps)": 200,
}
ERRORS = {"ilf(7 steps)": 0.6, "8 steps + spacing(1.5)": 1.0}
CLIP = {"5 steps": 60.0, BASELINE: 80.0, "ilf(7 steps)": 80.0, "8 steps + spacing(1.5)": 81.0}
IQA = {"5 steps": 0.0, "ilf(7 steps)": 0.5, "8 steps + spacing(1.5)": 0.6, BASELINE: 0.6}


class Known(Study):
    """Errors and scores with a little noise, the same for all methods; ten rounds, seconds as their cost."""

    def images(self, label: str, metric: str) -> FloatArray:
        means = {"clip_score": CLIP.get(label, 80.0), "clip_iqa": IQA.get(label, 0.6), "fid": 1.0, "image_reward": 0.5}
        noise = np.random.default_rng(0).normal(0, 0.05, 200)
        return np.asarray(means.get(metric, ERRORS.get(label, 1.0)) + noise, dtype=np.float64)


@pytest.fixture
def study() -> Study:
    def score(label: str, metric: str) -> Score:
        direction: Any = "lower" if metric == "fid" else "higher"
        return Score(label, metric, metric, "", direction, True, 0.0, 200, {}, np.zeros(200))

    records = {label: method_record(label, cost) for label, cost in COSTS.items()}
    timings = {
        label: [SimpleNamespace(round=r, latency_s=cost * (1 + 0.01 * r), batch=1) for r in range(10)]
        for label, cost in COSTS.items()
    }
    scores = {(label, metric): score(label, metric) for label in COSTS for metric in SCORES}
    run: Any = SimpleNamespace(methods=list(records.values()), records=records, scores=scores, timings_of=timings)
    return Known(run)


def test_a_score_that_the_converged_sample_loses_too_is_told_apart(study: Study) -> None:
    cells = duel(study, "ilf(7 steps)", "8 steps + spacing(1.5)")
    assert cells[:2] == ["ilf(7 steps) (182)", "8 steps + spacing(1.5) (192)"]
    assert cells[2].startswith("40% (") and cells[3].startswith("40% (")
    assert cells[4].startswith("40% ("), "the judge's"
    assert cells[5:] == ["clip_score, clip_iqa", "clip_score", "clip_iqa"], "a tenth of the drop to 5 steps: 2 and 0.06"
    same = duel(study, "ilf(8 steps)", "ilf-adapter(8 steps)")
    assert same[2] == "0% (0..0)" and same[5:] == ["none", "", "none"]


def test_each_cache_meets_the_dearest_ilf_that_costs_no_more(study: Study) -> None:
    assert [row[:2] for row in against_caches(study)] == [
        ["ilf(7 steps) (182)", "20 steps + near (200)"],
        ["ilf(8 steps) (208)", "20 steps + far (250)"],
    ]


def test_ilf_meets_the_adapter_of_its_steps_and_the_next_dearer_one(study: Study) -> None:
    rows = second_pass(study)
    assert [tuple(row[:2]) for row in rows] == [
        ("ilf(6 steps) (156)", "ilf-adapter(6 steps) (150)"),
        ("ilf(6 steps) (156)", "ilf-adapter(8 steps) (200)"),
        ("ilf(7 steps) (182)", "ilf-adapter(8 steps) (200)"),
        ("ilf(8 steps) (208)", "ilf-adapter(8 steps) (200)"),
    ]
    assert rows[0][-1] == "0.96 (0.96..0.96)"


def test_adapters_stand_in_their_own_table_only(study: Study) -> None:
    rows = equal_cost(study)
    assert rows and not any(row[0].startswith("ilf-adapter") for row in rows)


def test_a_module_pays_back_in_images_not_batches(study: Study) -> None:
    """480 s an image plain and 208 s with ilf: 272 s saved; 27,200 s of training are paid back after 100 images."""
    for record in study.run.records.values():
        record.__dict__.update(training_s=27_200.0, extra_parameters=1)
    for label, calls in study.run.timings_of.items():
        for call in calls:
            call.__dict__.update(latency_s=32.0 * COSTS[label], batch=32, peak_memory_bytes=2**20)
    assert ["ilf(8 steps)", "27200", "1", "+0", "100 (100..100)"] in upfront_cost(study)


def test_a_section_replaces_its_own_and_leaves_the_others(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# Page\n\nWords.\n\n<!-- tables -->\n\n## one\n\n### part\n\nold\n\n## two\n\nstays\n", encoding="utf-8")
    put_sections(page, ["## one\n\nnew\n"])
    assert page.read_text() == "# Page\n\nWords.\n\n<!-- tables -->\n\n## one\n\nnew\n\n## two\n\nstays\n"
    put_sections(page, ["## three\n\nadded\n\n"])
    assert page.read_text().endswith("## two\n\nstays\n\n## three\n\nadded\n")


@pytest.mark.parametrize("name", ["ilf-study", "ilf-ablations", "judge", "untrained"])
def test_the_pages_keep_their_bytes_where_nothing_is_new(name: str, tmp_path: Path) -> None:
    text = (ROOT / "docs" / "results" / f"{name}.md").read_text(encoding="utf-8")
    (tmp_path / "page.md").write_text(text, encoding="utf-8")
    put_sections(tmp_path / "page.md", [])
    assert (tmp_path / "page.md").read_text(encoding="utf-8") == text
