"""What ``--dry-run`` says of each method's memory."""

from __future__ import annotations

import pytest

from harness.execution import fitting
from ilf_bench.experiment import prepare

METHODS = ("full", "steps:8", "steps:9+spacing:1.5", "steps:8+solver:ddim", "taylorseer:interval=2")


def test_rows_of_the_plain_pipeline_are_rehearsed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    experiment = prepare("tiny-class", {"methods": METHODS}, ()).experiment
    placed, _, peaks = fitting.foresee(experiment)
    assert placed.predicted is not None and list(peaks) == list(experiment.methods)
    asked = list[str]()
    each = fitting.predict_methods(experiment.spec, experiment.prompts, placed.predicted, experiment.methods)
    assert peaks == each, "they need what the full run needs"
    monkeypatch.setattr(fitting, "predict_methods", lambda spec, prompts, full, methods: asked.extend(methods) or {})
    fitting.foresee(experiment)
    assert asked == ["8 steps + ddim", "taylorseer(interval=2, order=2)"]
