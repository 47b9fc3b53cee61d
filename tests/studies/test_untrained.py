"""Which untrained methods no other one beats, on a run with known numbers."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np

from harness.results import FloatArray
from studies.study import Study
from studies.untrained import best
from tests.records import method_record

KNOWN = {  # block evaluations, feature distance, pixel error
    "20 steps": (480, 0.5, 5.0),
    "14 steps": (336, 0.4, 4.0),
    "12 steps": (288, 0.6, 4.5),
    "10 steps": (240, 0.7, 6.0),
    "10 steps + unipc": (240, 0.8, 5.5),
    "9 steps": (240, 0.8, 6.5),
}


class Known(Study):
    """Every image has the mean error."""

    def images(self, label: str, metric: str) -> FloatArray:
        return np.full(4, KNOWN[label][1 if metric == "feature_distance" else 2])

    def cost(self, label: str) -> float:
        return KNOWN[label][0]


def test_what_is_beaten_in_both_errors_at_its_cost_is_left_out_but_not_the_pipelines_own_run() -> None:
    records = {label: method_record(label, 100) for label in KNOWN}
    run: Any = SimpleNamespace(methods=list(records.values()), records=records)
    assert [(row[0], row[1], row[-1]) for row in best(Known(run))] == [
        ("10 steps", "240", "no"),
        ("10 steps + unipc", "240", "no"),
        ("12 steps", "288", "no"),
        ("14 steps", "336", "yes"),
        ("20 steps", "480", "yes"),
    ]
