"""Times at further batch sizes, calls made with the clock held down, and timings that failed: shown wherever times are."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from dataclasses import replace

import pytest

from harness.results import Failure
from harness.storage.records import Run
from reports.analysis.select import LAUNCHES, metric_order, run_notes
from reports.render.html import html_report
from reports.render.markdown import csv_report, markdown_report
from reports.render.plots import speed_plots, stage_plot
from reports.render.tables import comparison_table
from reports.render.words import facts, failures, stage_sentence

Make = Callable[..., Run]


def page_of(run: Run) -> str:
    table = comparison_table(run)
    return html_report(run, table, speed_plots(run, table), stage_plot(table), {}, None)


def at_batch_one(run: Run) -> Run:
    """The same run timed at batch 1, too, where every method takes half as long a batch and 8 steps fails."""
    timing = dict(run.spec["timing"]) | {"batches": [1]}
    others = tuple(replace(t, batch=1, latency_s=t.latency_s / 2) for t in run.timings if t.method != "8 steps")
    failure = {("8 steps", "timing_batch_1"): Failure("8 steps", "timing_batch_1", "out of memory at <1>")}
    return replace(run, spec=dict(run.spec) | {"timing": timing}, other_batches=others, scores=dict(run.scores) | failure)


def test_a_further_batch_size_has_a_table_of_its_own(make_run: Make) -> None:
    """Half the time for a quarter of the images is twice the time an image; the comparison itself stays as it was."""
    run = make_run(noise=0.0)
    table = comparison_table(at_batch_one(run))
    (part,) = table.batches
    rows = {row.label: row.cells for row in part.rows}
    assert part.batch == 1 and rows["full"]["latency_s"].value == pytest.approx(2.0)
    assert rows["12 steps"]["speed_up"].value == pytest.approx(1 / 0.6)
    assert rows["8 steps"]["latency_s"].failure == "out of memory at <1>"
    assert [row.cells["latency_s"] for row in table.rows] == [row.cells["latency_s"] for row in comparison_table(run).rows]


def test_every_rendering_has_the_further_batch_size(make_run: Make) -> None:
    run = at_batch_one(make_run(noise=0.0))
    page, markdown = page_of(run), markdown_report(run)
    assert "At batch 1:" in page and "out of memory at &lt;1&gt;" in page and "interleaved rounds of batch 4 and 1" in page
    assert "## Time at batch 1" in markdown and "out of memory at &lt;1>" in markdown
    rows = {(r["method"], r["quantity"]): r for r in csv.DictReader(io.StringIO(csv_report(comparison_table(run))))}
    assert float(rows["full", "latency_s at batch 1"]["value"]) == pytest.approx(2.0)
    assert rows["8 steps", "latency_s at batch 1"]["failure"] == "out of memory at <1>"
    assert ("8 steps", "timing at batch 1", "out of memory at <1>") in failures(run)


def test_a_failed_timing_is_no_metric(make_run: Make) -> None:
    run = make_run()
    timings = tuple(t for t in run.timings if t.method != "8 steps")
    run = replace(run, timings=timings, scores=dict(run.scores) | {("8 steps", "timing"): Failure("8 steps", "timing", "broke")})
    assert metric_order(run) == ["good", "far"]
    cells = next(row.cells for row in comparison_table(run).rows if row.label == "8 steps")
    assert cells["latency_s"].failure == cells["text_s"].failure == "broke"
    assert ("8 steps", "timing", "broke") in failures(run)


def test_throttled_calls_are_counted_and_marked(make_run: Make) -> None:
    run = make_run()
    held = tuple(
        replace(t, clock_mhz=1500, throttled="thermal,power" if t.method == "12 steps" and t.round < 3 else "")
        for t in run.timings
    )
    throttled = replace(run, timings=held)
    table = comparison_table(throttled)
    counted = {row.label: row.cells["throttled"] for row in table.rows}
    assert counted["12 steps"].text == "3 of 8: thermal, power" and counted["full"].text == "0 of 8"
    page = page_of(throttled)
    assert "<strong>Throttled.</strong> 3 of 40 timed calls" in page and "throttled calls 3 of 8: thermal, power" in page
    assert "Throttled calls" in markdown_report(throttled)
    free = replace(run, timings=tuple(replace(t, clock_mhz=1500) for t in run.timings))
    assert "0 of 40 timed calls" in dict(facts(free))["Throttling"] and "Throttled" not in page_of(free)


def test_without_a_clock_nothing_is_claimed(make_run: Make) -> None:
    run = make_run()
    assert dict(facts(run))["Throttling"] == "not known: the clock was not recorded"
    assert comparison_table(run).rows[0].cells["throttled"].failure == "no clock was watched"
    assert "Throttled" not in page_of(run)


def test_a_gpus_times_at_batch_one_are_said_to_measure_launches(make_run: Make) -> None:
    run = at_batch_one(make_run())
    there = replace(run, environment=run.environment | {"device": "cuda:1"})
    for shown in (page_of(there), markdown_report(there)):
        assert LAUNCHES in shown
    assert LAUNCHES not in run_notes(replace(run, environment=run.environment | {"device": "cpu"}))
    assert LAUNCHES not in run_notes(replace(there, other_batches=()))


def staged(run: Run, **changes: object) -> Run:
    """Every call in four stages: text 0.1, copy 0.1 and decoding 0.2 of the full run's seconds, and the rest denoising."""
    full = 4.0  # seconds of a batch
    samples = []
    for t in run.timings:
        fixed = {"text_s": 0.1 * full, "decode_s": 0.2 * full, "copy_s": 0.1 * full}
        denoise = 0.6 * full if t.method.startswith("full") else 0.2 * full
        samples.append(replace(t, latency_s=denoise + 0.4 * full, denoise_s=denoise, **fixed, **changes))
    return replace(run, timings=tuple(samples))


def test_denoising_alone_stands_beside_end_to_end(make_run: Make) -> None:
    run = staged(make_run(noise=0.0), energy_j=80.0)
    cells = {row.label: row.cells for row in comparison_table(run).rows}
    assert cells["full"]["copy_s"].text == "100 ms (10%)" and cells["full"]["denoise_s"].text == "600 ms (60%)"
    assert cells["12 steps"]["speed_up"].value == pytest.approx(1 / 0.6)
    assert cells["12 steps"]["denoise_speed_up"].value == pytest.approx(3.0)
    assert cells["12 steps"]["energy_j"].value == pytest.approx(20.0) and cells["12 steps"]["energy_j"].text.endswith(" J")
    for shown in (page_of(run), markdown_report(run)):
        assert "denoising only" in shown and "end to end" in shown
        assert "Text, decoding and copying take 40% of the full run, so that no faster denoiser gains more than 2.50×" in shown
    rows = {(r["method"], r["quantity"]): r for r in csv.DictReader(io.StringIO(csv_report(comparison_table(run))))}
    assert float(rows["12 steps", "denoise_speed_up"]["value"]) == pytest.approx(3.0)
    assert rows["12 steps", "energy_j"]["unit"] == "J per image"


def test_energy_that_nobody_measured_is_no_number(make_run: Make) -> None:
    run = make_run()
    cells = {row.label: row.cells for row in comparison_table(run).rows}
    assert cells["full"]["energy_j"].value is None and "no energy" in cells["full"]["energy_j"].failure
    assert "the stages were not timed" in stage_sentence(replace(run, timings=())).lower()


def test_a_text_stage_that_was_timed_apart_is_marked_in_every_row(make_run: Make) -> None:
    run = staged(make_run(), text_apart=True)
    texts = [row.cells["text_s"].text for row in comparison_table(run).rows]
    assert all(text.endswith(", timed once, apart") for text in texts) and len(texts) > 2
    assert "timed once, apart" in page_of(run) and "timed once, apart" in markdown_report(run)
