"""The gate's verdicts, one cause at a time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from harness.contracts import Failure
from harness.records import Run
from harness.statistics import Interval
from reports.gate import GateResult, GateVerdict, Limits, gate, gate_markdown, gate_text, independent_ratio, judge

Make = Callable[..., Run]
PASS, FAIL, INCONCLUSIVE, NOT_MEASURED = GateVerdict


def verdicts(result: GateResult, check: str) -> set[GateVerdict]:
    return {row.verdict for row in result.rows if row.check == check}


def test_identical_runs_pass(make_run: Make) -> None:
    result = gate(make_run("a"), make_run("b"))
    assert len(result.rows) == 4 * 4
    assert {row.verdict for row in result.rows} == {PASS}
    assert result.exit_code == 0


def test_twenty_percent_slower_fails_and_faster_passes(make_run: Make) -> None:
    base, slow = make_run("a"), make_run("b", slowdown=1.2, timing_seed=1)
    result = gate(slow, base)
    assert verdicts(result, "speed") == {FAIL}
    assert verdicts(result, "good") == verdicts(result, "memory") == {PASS}
    assert result.exit_code == 1
    assert verdicts(gate(base, slow), "speed") == {PASS}


def test_noise_is_inconclusive(make_run: Make) -> None:
    result = gate(make_run("a", noise=0.3, timing_seed=1), make_run("b", noise=0.3))
    assert INCONCLUSIVE in verdicts(result, "speed")
    assert FAIL not in verdicts(result, "speed")


def test_a_noisy_machine_never_buys_a_pass(make_run: Make) -> None:
    """An A/A spread of 40% excuses a slow-down of 20%, but the verdict is then INCONCLUSIVE and the row says why."""
    base = make_run("a")
    rough = replace(
        base, timings=tuple(replace(t, latency_s=t.latency_s * (1.4 if t.method == "full (A/A)" else 1)) for t in base.timings)
    )
    result = gate(make_run("b", slowdown=1.2), rough)
    assert verdicts(result, "speed") == {INCONCLUSIVE}
    assert "A/A spread" in next(row.text for row in result.rows if row.check == "speed")


def test_few_rounds_are_inconclusive(make_run: Make) -> None:
    result = gate(make_run("a", rounds=2), make_run("b", rounds=2))
    assert verdicts(result, "speed") == {INCONCLUSIVE}
    assert result.exit_code == 2


def test_a_missing_metric_is_not_measured(make_run: Make) -> None:
    result = gate(make_run("a", missing=(("8 steps", "good"),)), make_run("b"))
    row = next(row for row in result.rows if row.verdict is NOT_MEASURED)
    assert (row.method, row.check) == ("8 steps", "good") and "ran out of memory" in row.text
    assert result.exit_code == 3


def test_a_scorer_that_failed_in_both_runs_is_not_measured_either(make_run: Make) -> None:
    missing = (("8 steps", "good"),)
    assert gate(make_run("a", missing=missing), make_run("b", missing=missing)).verdict is NOT_MEASURED


def test_fulls_distance_to_itself_is_shown_but_not_counted(make_run: Make) -> None:
    missing = (("full", "far"),)
    result = gate(make_run("a", missing=missing), make_run("b", missing=missing))
    assert result.verdict is PASS
    assert [row.check for row in result.rows if not row.counted] == ["far"]
    assert gate(make_run("c", missing=missing), make_run("d")).verdict is NOT_MEASURED


def test_different_fingerprints_are_refused(make_run: Make) -> None:
    result = gate(make_run("a", fingerprint="bb"), make_run("b"))
    assert verdicts(result, "good") == {NOT_MEASURED}
    assert "fingerprints differ in weights" in gate_text(result)
    assert verdicts(result, "speed") == {PASS}


def test_another_machine_gives_no_speed(make_run: Make) -> None:
    result = gate(make_run("a", machine="other"), make_run("b"))
    assert verdicts(result, "speed") == verdicts(result, "memory") == {NOT_MEASURED}
    assert verdicts(result, "good") == {PASS}


def test_a_method_that_broke_or_vanished_is_not_measured(make_run: Make) -> None:
    base = make_run("b")
    broken = replace(base, methods=base.methods[:-1], failed_methods=(Failure("ilf(steps=10)", "", "boom"),))
    result = gate(broken, base)
    assert all("boom" in row.text for row in result.rows if row.verdict is NOT_MEASURED and row.check == "speed")
    assert result.verdict is NOT_MEASURED
    assert gate(make_run("c", methods={"full": (20, 480, 1.0, 10.0)}), base).verdict is NOT_MEASURED


def test_worse_images_fail_and_better_pass(make_run: Make) -> None:
    base = make_run("b")
    assert verdicts(gate(make_run("a", shift=-1.0), base), "good") == {FAIL}
    assert verdicts(gate(make_run("c", shift=1.0), base), "good") == {PASS}
    assert verdicts(gate(make_run("d", shift=-0.1), base), "good") == {PASS}


def test_other_samples_are_compared_unpaired(make_run: Make) -> None:
    base = make_run("b")
    paired = next(row for row in gate(make_run("a", shift=-0.2), base).rows if row.check == "good")
    unpaired = next(row for row in gate(make_run("c", shift=-0.2, seed=2000), base).rows if row.check == "good")
    assert "paired" in paired.text and paired.verdict is PASS
    assert "unpaired" in unpaired.text and unpaired.verdict is INCONCLUSIVE


def test_a_margin_can_be_named(make_run: Make) -> None:
    result = gate(make_run("a", shift=-0.1), make_run("b"), Limits(margins={"good": 0.05}))
    assert verdicts(result, "good") == {FAIL}


def test_another_experiment_and_a_partial_run_are_not_measured(make_run: Make) -> None:
    base = make_run("b")
    other = replace(base, spec=dict(base.spec) | {"guidance": 7.0})
    assert {row.verdict for row in gate(other, base).rows} == {NOT_MEASURED}
    assert gate(make_run("a", complete=False), base).verdict is NOT_MEASURED


def test_precedence_and_codes() -> None:
    from reports.gate import GateRow

    def whole(*found: GateVerdict) -> GateVerdict:
        return GateResult("a", "b", tuple(GateRow("m", "c", verdict, "") for verdict in found)).verdict

    assert whole(PASS, INCONCLUSIVE, NOT_MEASURED, FAIL) is FAIL
    assert whole(PASS, INCONCLUSIVE, NOT_MEASURED) is NOT_MEASURED
    assert whole(PASS, INCONCLUSIVE) is INCONCLUSIVE
    assert whole() is NOT_MEASURED
    assert [verdict.exit_code for verdict in (PASS, FAIL, INCONCLUSIVE, NOT_MEASURED)] == [0, 1, 2, 3]


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_an_interval_that_is_not_finite_never_passes(bad: float) -> None:
    assert judge(Interval(bad, bad, bad), 1.0, 1.0) is INCONCLUSIVE
    assert judge(Interval(0.5, -np.inf, np.inf), 1.0, 1.0) is INCONCLUSIVE


def test_independent_ratio_covers_the_truth() -> None:
    rng = np.random.default_rng(1)
    hits = 0
    for seed in range(100):
        interval = independent_ratio(rng.normal(1.2, 0.05, 30), rng.normal(1.0, 0.05, 20), seed)
        hits += interval.low <= 1.2 <= interval.high
    assert 88 <= hits <= 100


def test_a_damaged_manifest_raises_instead_of_passing(make_run: Make) -> None:
    from harness.errors import ArtifactError
    from harness.records import slug

    base, current = make_run("b"), make_run("a")
    (current.path / "samples" / slug("full") / "manifest.json").write_text('{"samples": [{}]}')
    with pytest.raises(ArtifactError, match="index, prompt and file"):
        gate(current, base)


def test_markdown(make_run: Make) -> None:
    text = gate_markdown(gate(make_run("a", slowdown=1.2), make_run("b")))
    assert text.startswith("## Gate: FAIL")
    assert "| full | speed | FAIL |" in text
