"""Whether the judge agrees, on a run with known numbers."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np

from harness.results import FloatArray
from studies.judge import agreement
from studies.study import JUDGE, Study
from tests.records import method_record

MEANS = {"20 steps": (0.5, 5.0), "8 steps": (1.0, 7.0), "7 steps": (1.2, 6.0), "6 steps": (1.2, 8.0)}  # ours, the judge's


class Known(Study):
    """Errors with a little noise of each method's own."""

    def images(self, label: str, metric: str) -> FloatArray:
        noise = np.random.default_rng(list(MEANS).index(label)).normal(0, 0.05, 64)
        return np.asarray(MEANS[label][metric == JUDGE] + noise - noise.mean(), dtype=np.float64)


def test_pairs_that_both_tell_apart_and_the_one_that_they_order_differently() -> None:
    records = {label: method_record(label, 100) for label in MEANS}
    run: Any = SimpleNamespace(methods=list(records.values()), records=records)
    metric, tau, pairs, both, against = agreement(Known(run), "feature_distance")
    assert (metric, pairs) == ("feature_distance", "6")
    assert (both, against) == ("5", "1"), "7 and 6 steps are equal to ours; 8 and 7 steps are the other way round to the judge"
    assert float(tau) < 1
