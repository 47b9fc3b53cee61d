"""The gate's verdicts, one cause at a time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from harness.errors import UsageError
from harness.results import REFERENCE, Failure, Score, TimingSample
from harness.statistics import holm
from harness.storage.records import Run
from ilf_bench.commands.gate import gate_runs, parse_limits
from reports.analysis.changes import Change, Missing, changes
from reports.analysis.findings import LEVEL, p_value, upper_bound
from reports.analysis.gate import GateResult, GateVerdict, Limits, gate, judge
from reports.analysis.spread import Spread, Spreads
from reports.render.gate_pages import gate_text
from tests.records import method_record

Make = Callable[..., Run]
PASS, FAIL, INCONCLUSIVE, NOT_MEASURED = GateVerdict


def verdicts(result: GateResult, check: str) -> set[GateVerdict]:
    return {row.verdict for row in result.rows if row.check == check}


def test_a_run_is_not_held_against_itself(make_run: Make) -> None:
    """Wherever it lies, and by whatever name it is called: nothing can be said of it, and least of all that it passes."""
    run = make_run("a")
    result = gate(run, replace(run, path=run.path.with_name("moved")))
    (row,) = result.rows
    assert result.verdict is NOT_MEASURED and result.exit_code == 3 and "is the baseline itself" in row.text


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
    assert "the A/A pair" in next(row.text for row in result.rows if row.check == "speed")


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
    then = make_run("c")
    threads = [
        replace(run, environment={**run.environment, "threads": n}) for run, n in ((make_run("d", machine="other"), 1), (then, 2))
    ]
    assert "different machines: threads: 2 -> 1" in {row.text for row in gate(*threads).rows}


def test_a_method_that_broke_or_vanished_is_not_measured(make_run: Make) -> None:
    base = make_run("b")
    broken = replace(
        base, methods=base.methods[:-1], failed_methods=(Failure("ilf(steps=10)", "", "boom"),), planned=base.methods[-1:]
    )
    result = gate(broken, base)
    assert [(row.check, row.text) for row in result.rows if row.method == "ilf(steps=10)"] == [("method", "current: boom")]
    assert result.verdict is NOT_MEASURED
    few = gate(make_run("c", methods={"full": (20, 480, 1.0, 10.0)}), base)
    assert few.verdict is NOT_MEASURED
    gone = [row.method for row in few.rows if row.text == "current: not a method of this run"]
    assert gone == ["12 steps", "8 steps", "ilf(steps=10)"], "one row each"


def test_worse_images_fail_and_better_pass(make_run: Make) -> None:
    base = make_run("b")
    assert verdicts(gate(make_run("a", shift=-1.0), base), "good") == {FAIL}
    assert verdicts(gate(make_run("c", shift=1.0), base), "good") == {PASS}
    assert verdicts(gate(make_run("d", shift=-0.1), base), "good") == {PASS}


def test_a_margin_can_be_named(make_run: Make) -> None:
    result = gate(make_run("a", shift=-0.1), make_run("b"), Limits(margins={"good": 0.05}))
    assert verdicts(result, "good") == {FAIL}


def test_another_experiment_and_a_partial_run_are_not_measured(make_run: Make) -> None:
    base = make_run("b")
    other = replace(base, spec=dict(base.spec) | {"guidance": 7.0})
    assert {row.verdict for row in gate(other, base).rows} == {NOT_MEASURED}
    assert gate(make_run("a", complete=False), base).verdict is NOT_MEASURED


def test_precedence_and_codes() -> None:
    from reports.analysis.gate import GateRow

    def whole(*found: GateVerdict) -> GateVerdict:
        return GateResult("a", "b", tuple(GateRow("m", "c", verdict, "") for verdict in found)).verdict

    assert whole(PASS, INCONCLUSIVE, NOT_MEASURED, FAIL) is FAIL
    assert whole(PASS, INCONCLUSIVE, NOT_MEASURED) is NOT_MEASURED
    assert whole(PASS, INCONCLUSIVE) is INCONCLUSIVE
    assert whole() is NOT_MEASURED
    assert [verdict.exit_code for verdict in (PASS, FAIL, INCONCLUSIVE, NOT_MEASURED)] == [0, 1, 2, 3]


def change(value: float, error: float, freedom: float = 7.0) -> Change:
    return Change("m", "speed", value, error, freedom, "", 1.0, 1.0)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_not_finite_never_passes(bad: float) -> None:
    assert judge(change(bad, 0.1), 1.0, significant=True) is INCONCLUSIVE
    assert judge(change(0.0, bad), 1.0, significant=False) is INCONCLUSIVE
    assert p_value(change(bad, 0.1)) == 1.0


def test_the_three_zones() -> None:
    """Tolerance 1: a significant loss from 0.5 on fails, a bound within 1 passes, anything else is open."""
    assert judge(change(0.6, 0.1), 1.0, significant=True) is FAIL
    assert judge(change(0.4, 0.01), 1.0, significant=True) is PASS
    assert judge(change(0.6, 0.1), 1.0, significant=False) is PASS
    assert judge(change(0.6, 0.5), 1.0, significant=False) is INCONCLUSIVE
    assert judge(change(-3.0, 0.5), 1.0, significant=False) is PASS


def test_p_value_and_bound_are_students() -> None:
    assert p_value(change(1.894579, 1.0)) == pytest.approx(0.05, abs=1e-6)
    assert upper_bound(change(1.0, 1.0)) == pytest.approx(2.894579)


def test_the_historys_spread_raises_the_threshold(make_run: Make) -> None:
    """The rounds alone call 12% a failure; where repeated runs of one commit differ by 10%, nobody can tell."""
    base, slow = make_run("a"), make_run("b", slowdown=1.12, timing_seed=1)
    assert verdicts(gate(slow, base), "speed") == {FAIL}
    spreads = Spreads({(method, "speed"): Spread(0.1, 9) for method in ("full", "12 steps", "8 steps", "ilf(steps=10)")})
    result = gate(slow, base, spreads=spreads)
    assert verdicts(result, "speed") == {INCONCLUSIVE}
    assert "repeated runs in the history" in gate_text(result)
    few = Spreads({key: replace(spread, freedom=3) for key, spread in spreads.found.items()})
    assert verdicts(gate(slow, base, spreads=few), "speed") == {FAIL}


def calibrated(run: Run, factor: float = 1.0, cpu: float | None = None) -> Run:
    """With the fixed workload around each call, everything ``factor`` times as slow; with ``cpu``, that share of it as cpu_s."""
    timings = []
    for sample in run.timings:
        times = {"latency_s": sample.latency_s * factor, "cpu_s": cpu and sample.latency_s * cpu}
        work = replace(sample, method=REFERENCE, latency_s=0.02 * factor, cpu_s=cpu and 0.02 * cpu)
        timings += [work, replace(sample, **times), work]
    return replace(run, timings=tuple(timings))


def test_a_slower_machine_cancels(make_run: Make) -> None:
    """Everything takes 1.5 times as long, the fixed workload too."""
    base, busy = calibrated(make_run("a")), calibrated(make_run("b", timing_seed=1), factor=1.5)
    assert verdicts(gate(busy, base), "speed") == {PASS}
    slow = calibrated(make_run("c", slowdown=1.2, timing_seed=1), factor=1.5)
    assert verdicts(gate(slow, base), "speed") == {FAIL}
    assert "relative to the fixed workload" in gate_text(gate(slow, base))


def test_processor_time_is_judged_and_waiting_is_shown(make_run: Make) -> None:
    """A sleep costs no processor time: the wall clock finds it. A wall clock that is only noisy does not count."""
    base = calibrated(make_run("a"), cpu=0.9)
    assert verdicts(gate(calibrated(make_run("b", timing_seed=1), cpu=0.9), base), "wall clock") == {PASS}
    waiting = calibrated(make_run("c", timing_seed=2), cpu=0.9)
    waiting = replace(
        waiting, timings=tuple(replace(t, latency_s=t.latency_s * (1 if t.method == REFERENCE else 1.2)) for t in waiting.timings)
    )
    result = gate(waiting, base)
    assert verdicts(result, "speed") == {PASS} and verdicts(result, "wall clock") == {FAIL} and result.exit_code == 1
    rng = np.random.default_rng(0)
    noisy = replace(base, timings=tuple(replace(t, latency_s=t.latency_s * np.exp(rng.normal(0, 1))) for t in base.timings))
    result = gate(noisy, base)
    assert INCONCLUSIVE in verdicts(result, "wall clock") and result.verdict is PASS


def test_false_alarms_and_power_of_the_rule() -> None:
    """Simulated: nine methods, error 1%. At most 5% of gates without a change alarm; of those with 5% on one, most fail."""
    rng = np.random.default_rng(3)
    tolerance, alarms, caught = float(np.log(1.05)), 0, 0
    for slower in (0.0, np.log(1.05)):
        for _ in range(400):
            shift = np.where(np.arange(9) == 0, slower, 0.0)
            values, errors = shift + rng.normal(0, 0.01, 9), _errors(rng)
            found = {i: change(float(values[i]), float(errors[i]), 14) for i in range(9)}
            adjusted = holm({i: p_value(c) for i, c in found.items()})
            failed = any(judge(c, tolerance, adjusted[i] <= LEVEL) is FAIL for i, c in found.items())
            alarms, caught = alarms + (failed and not slower), caught + (failed and bool(slower))
    assert alarms <= 0.05 * 400 and caught >= 0.9 * 400


def _errors(rng: np.random.Generator) -> np.ndarray:
    """Estimated standard errors of 1% with 14 degrees of freedom, nine of them."""
    return 0.01 * np.sqrt(rng.chisquare(14, 9) / 14)


@pytest.mark.parametrize("n", [1, 2])
def test_one_sample_and_equal_samples(make_run: Make, n: int) -> None:
    """One image has no interval, so only an exact match could pass; equal values are compared exactly."""
    base = make_run("a")

    def constant(value: float) -> Run:
        score = base.scores["full", "good"]
        assert isinstance(score, Score)
        one = replace(score, value=value, n=n, influence=np.full(n, value))
        return replace(base, scores=dict(base.scores) | {("full", "good"): one})

    def verdict(now: float, then: float) -> GateVerdict:
        current = constant(now)
        rows = gate(replace(current, environment={**current.environment, "command": "another"}), constant(then)).rows
        return next(row.verdict for row in rows if (row.method, row.check) == ("full", "good"))

    if n == 1:
        assert verdict(1.0, 1.0) is verdict(0.9, 1.0) is INCONCLUSIVE
    else:
        assert (verdict(1.0, 1.0), verdict(0.9, 1.0), verdict(1.1, 1.0)) == (PASS, FAIL, PASS)


@pytest.mark.parametrize("bad", [0.0, -1.0, np.inf, np.nan])
def test_impossible_times_are_not_measured(make_run: Make, bad: float) -> None:
    base = make_run("a")
    odd = replace(base, timings=(replace(base.timings[0], latency_s=bad), *base.timings[1:]))
    row = next(row for row in gate(odd, make_run("b")).rows if row.check == "speed")
    assert row.verdict is NOT_MEASURED and "not a positive number" in row.text


def test_a_thousand_methods(make_run: Make) -> None:
    """Each is checked, and Holm's correction over three thousand checks raises no alarm."""
    base = make_run("a")
    labels = ["full", *(f"{i} steps" for i in range(2, 1001))]

    def many(seed: int) -> Run:
        rng = np.random.default_rng(seed)
        timings = [TimingSample(m, r, 1, float(np.exp(rng.normal(0, 0.01))), 0, 1, 0, 10**6) for r in range(4) for m in labels]
        score = base.scores["full", "good"]
        scores = {(label, "good"): replace(score, method=label) for label in labels}
        records = tuple(method_record(label, 480) for label in labels)
        spec = dict(base.spec) | {"method_labels": labels, "metrics": ["good"]}
        return replace(base, spec=spec, methods=records, scores=scores, timings=tuple(timings))

    result = gate(many(0), many(1))
    assert len(result.rows) == 3 * 1000 and FAIL not in {row.verdict for row in result.rows}


def test_changes_name_how_scores_were_paired(make_run: Make) -> None:
    base = make_run("a")
    assert {c.how for c in changes(make_run("b"), base) if c.check == "good"} == {"paired by noise"}  # type: ignore[union-attr]
    other = changes(make_run("c", seed=2000), base)
    assert {c.how for c in other if c.check == "good"} == {"paired by prompt, other noise"}  # type: ignore[union-attr]
    base_prompts = replace(base, spec=dict(base.spec) | {"prompts": "others.txt"})
    assert {c.how for c in changes(make_run("d"), base_prompts) if c.check == "good"} == {"unpaired"}  # type: ignore[union-attr]


def test_runs_of_two_sizes_are_compared_on_the_images_that_they_share(make_run: Make) -> None:
    base, fewer = make_run("a"), make_run("b", n=32, shift=0.5)
    (found,) = (c for c in changes(fewer, base) if isinstance(c, Change) and (c.method, c.check) == ("8 steps", "good"))
    now, then = (run.scores["8 steps", "good"] for run in (fewer, base))
    assert isinstance(now, Score) and isinstance(then, Score) and (now.n, then.n) == (32, 64)
    difference = now.influence - then.influence[:32]
    assert (found.how, found.images, found.freedom) == ("paired by noise", 32, 31)
    assert found.value == pytest.approx(difference.mean())
    assert found.error == pytest.approx(difference.std(ddof=1) / 32**0.5)
    assert (found.now, found.then) == pytest.approx((now.value, then.influence[:32].mean()))


def test_what_depends_on_the_number_of_images_is_not_compared_at_two(make_run: Make) -> None:
    """A Frechet distance falls with N, so a run of fewer images would be worse for that alone."""
    base, fewer = make_run("a"), make_run("b", n=32)
    whole = {key: replace(score, per_image=None) for key, score in base.scores.items() if isinstance(score, Score)}
    rows = changes(fewer, replace(base, scores=whole))
    reasons = {row.reason for row in rows if isinstance(row, Missing)}
    assert reasons == {"its value depends on the number of images, which was 64 and is 32"}
    per_method = [row for row in rows if row.method == "8 steps"]
    assert [row.check for row in per_method if isinstance(row, Change)] == ["speed", "memory"]


def test_a_margin_of_nothing_that_was_scored_is_refused(make_run: Make, tmp_path: Path) -> None:
    current, baseline = (str(make_run(name).path) for name in ("a", "b"))
    with pytest.raises(UsageError, match=r"margins of .*good.*; got goood"):
        gate_runs(tmp_path, current, baseline, parse_limits(0.05, ["goood=1"]))
    with pytest.raises(UsageError, match="one margin per metric"):
        parse_limits(0.05, ["good=1", "good=2"])
    assert gate_runs(tmp_path, current, baseline, parse_limits(0.05, ["good=1"]))
