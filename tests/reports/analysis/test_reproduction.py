"""Anchors and published tables: a baseline of their own, the fields that disagree, and what a run reproduced."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.config.anchors import Anchor
from harness.config.methods import parse_method
from harness.config.spec import load_spec, preset_names
from harness.errors import UsageError
from harness.history.store import History
from harness.paths import ROOT
from harness.results import Score
from harness.storage.records import Run, read_run, write_json
from ilf_bench.cli import main
from ilf_bench.registry import BUILT_IN as METHODS
from reports.analysis.published import FOLDER, read_published
from reports.analysis.reproduction import beside, disagreements, reproductions
from reports.render.published import apart
from tests.reports.conftest import PROMPTS

Make = Callable[..., Run]
GOOD = {"metric": "good", "title": "Good score", "source": "a paper"}
TABLE = """
- source: a paper
  protocol: {n: 64, prompts: some list}
  baseline: full
  columns:
    - {metric: good, title: Good x 10, unit: "x10", factor: 10, direction: higher}
    - {metric: latency_s, title: Time, unit: s, direction: lower}
  rows:
    - {model: toy, method: full, steps: 20, values: [100, 2.0]}
    - {model: toy, method: fewer steps, ours: 12 steps, steps: 12, values: [85, 1.25]}
    - {model: toy, method: theirs, steps: 20, values: [99, null]}
"""


def table(folder: Path, text: str = TABLE) -> Path:
    path = folder / "table.yaml"
    path.write_text(text)
    return path


def known(run: Run, tiny: bool = False, **environment: Any) -> Run:
    """A run of a preset named toy, scored by networks that others have, too."""
    scores = {key: replace(one, tiny=tiny) if isinstance(one, Score) else one for key, one in run.scores.items()}
    run = replace(run, scores=scores)
    facts = {"prompts": {"source": "hub:x/some-list.json", "digest": "d"}, "image_pixels": 32 * 32, "device_name": "A chip"}
    return replace(run, spec=dict(run.spec) | {"name": "toy"}, environment=dict(run.environment) | facts | environment)


def outcome(run: Run, **anchor: Any) -> tuple[str, list[str]]:
    (found,) = reproductions(run, [Anchor(**(GOOD | anchor))])
    return found.outcome, [one.field for one in found.disagreements]


def test_a_run_reproduces_what_lies_in_the_window_at_the_same_n(make_run: Make) -> None:
    run = known(make_run())
    score = run.scores["full", "good"]
    assert isinstance(score, Score)
    mean, n = score.value, score.n
    assert outcome(run, value=mean, low=mean - 0.5, high=mean + 0.5, n=n, steps=20, resolution=32, prompts="Some List") == (
        "reproduced",
        [],
    )
    assert outcome(run, low=100 * mean - 50, high=100 * mean + 50, factor=100) == ("reproduced", [])
    assert outcome(run, low=mean + 5, high=mean + 6) == ("not reproduced", [])
    assert outcome(run, value=mean + 5) == ("no tolerance", [])
    assert outcome(run, low=mean - 1, high=mean + 1, n=5000, steps=50) == ("not comparable", ["n", "steps"])
    assert outcome(run, low=mean - 1, high=mean + 1, hardware="H100") == ("reproduced", ["hardware"])
    assert outcome(run, low=mean - 1, high=mean + 1, prompts_digest="d") == ("reproduced", [])
    assert outcome(run, low=mean - 1, high=mean + 1, prompts_digest="another's")[1] == ["prompts_digest"]
    assert outcome(run, low=mean - 1, high=mean + 1, solver="a solver of theirs")[1] == ["solver"]
    assert outcome(run, metric="fid", low=1, high=2)[0] == "not measured"


def test_an_interval_that_reaches_the_window_reproduces_it(make_run: Make) -> None:
    run = known(make_run())
    score = run.scores["full", "good"]
    assert isinstance(score, Score)
    wide = np.tile([0.0, 20.0], len(score.influence) // 2)
    run = replace(run, scores=dict(run.scores) | {("full", "good"): replace(score, influence=wide, value=10.0)})
    assert outcome(run, low=10.5, high=11)[0] == "reproduced" and outcome(run, low=14, high=15)[0] == "not reproduced"


def test_tiny_scorers_are_no_backbone_of_a_paper(make_run: Make) -> None:
    run = known(make_run(), tiny=True)
    score = run.scores["full", "good"]
    assert isinstance(score, Score) and score.tiny
    assert outcome(run, low=score.value - 1, high=score.value + 1) == ("not comparable", ["backbone"]), "whatever it names"
    inception = replace(score, fingerprint={"extractor": "inception-pool-1"})
    run = replace(run, scores=dict(run.scores) | {("full", "good"): inception})
    assert outcome(run, value=1, backbone="Inception")[1] == ["backbone"]
    run = replace(run, scores=dict(run.scores) | {("full", "good"): replace(inception, tiny=False)})
    assert outcome(run, value=1, backbone="Inception")[1] == []


def test_differences_are_to_the_tables_own_baseline_beside_ours(make_run: Make, tmp_path: Path) -> None:
    run = known(make_run(noise=0.0))
    fewer, time, theirs = beside(run, read_published(table(tmp_path)))
    assert (fewer.number.method, fewer.published, fewer.form) == ("fewer steps", -15, "difference")
    assert fewer.ours is not None and fewer.ours.value == pytest.approx(-10, abs=2), "ten times the difference of 1"
    assert time.form == "times as fast" and time.published == pytest.approx(1.6) and time.ours is not None
    assert time.ours.value == pytest.approx(1 / 0.6, rel=0.05)
    assert theirs.published == -1 and theirs.ours is None, "no method here does the same"
    assert [one.field for one in fewer.disagreements] == [] and fewer.number.protocol.unstated[:2] == ("backbone", "solver")


RATIOS = """
- source: a paper
  baseline: full
  columns:
    - {metric: speed_up, title: Speed-up, unit: times, direction: higher}
    - {metric: tflops, title: TFLOPs, unit: TFLOPs, direction: lower}
    - {metric: good, title: Distance, unit: dB, direction: higher, paired: true}
  rows:
    - {model: toy, method: full, values: [1.25, 100, null]}
    - {model: toy, method: fewer steps, ours: 12 steps, values: [2.5, 40, 30.2]}
"""


def test_speed_and_compute_are_ratios_and_a_paired_number_stands_as_it_is(make_run: Make, tmp_path: Path) -> None:
    run = known(make_run(noise=0.0))
    speed, compute, distance = beside(run, read_published(table(tmp_path, RATIOS)))
    assert (speed.published, speed.form) == (2.0, "times as fast") and (compute.published, compute.form) == (
        2.5,
        "times less compute",
    )
    assert speed.ours is not None and speed.ours.value == pytest.approx(1 / 0.6, rel=0.05)
    counted = [run.records[label].block_evaluations for label in ("full", "12 steps")]
    assert compute.ours is not None and counted[0] and counted[1] and compute.ours.value == counted[0] / counted[1]
    score = run.scores["12 steps", "good"]
    assert isinstance(score, Score) and (distance.published, distance.form) == (30.2, "paired")
    assert distance.ours is not None and distance.ours.value == pytest.approx(score.value), "not its difference to the full run's"


def test_the_fields_that_disagree_are_named_with_both_values(make_run: Make, tmp_path: Path) -> None:
    run = known(make_run())
    number = read_published(table(tmp_path, TABLE.replace("n: 64", "n: 5000, guidance: 7.5")))[0]
    texts = [one.text for one in disagreements(run, number.protocol, "good")]
    assert texts == ["n: 5000 there, 64 here", f"guidance: 7.5 there, {run.spec['guidance']:g} here"]


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("method: full,", "method: fuller,", "toy: 0 baseline rows 'full' instead of one"),
        ("method: theirs, steps: 20", "method: full, steps: 20", "toy: 2 baseline rows"),
        ("values: [85, 1.25]", "values: [85]", "2 columns but 1 values"),
        ("n: 64", "samples: 64", "samples"),
        ("[100, 2.0]", "[.nan, 2.0]", "finite"),
        ("[100, 2.0]", "[null, 2.0]", "toy, Good x 10: the baseline row 'full' has no value"),
        ("factor: 10", "factor: 10, paired: true", "the baseline row 'full' has a value, though the column is paired"),
    ],
)
def test_a_table_that_is_not_whole_is_refused(tmp_path: Path, old: str, new: str, words: str) -> None:
    assert old in TABLE
    with pytest.raises(UsageError, match=words):
        read_published(table(tmp_path, TABLE.replace(old, new)))


WITHOUT_PRESET = {"sdxl-1024"}


def test_bundled_tables_are_of_presets_and_name_methods_that_exist() -> None:
    numbers = [number for path in FOLDER.glob("*.yaml") for number in read_published(path)]
    assert {number.model for number in numbers} - set(preset_names()) == WITHOUT_PRESET
    for ours in {number.ours for number in numbers} - {""}:
        name, _, options = ours.rstrip(")").partition("(")
        text = ":".join([name, *options.split(", ")]) if options else ours
        steps = re.fullmatch(r"(\d+) steps", ours)
        found = parse_method(f"steps:{steps[1]}" if steps else text, METHODS)
        assert ours in (found.label, text), "a label of the method, or its text"


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.yaml")), ids=lambda path: path.stem)
def test_bundled_tables_have_sources_baselines_and_something_to_differ(path: Path) -> None:
    numbers = read_published(path)
    assert all(number.source and number.baseline_method for number in numbers)
    assert any(number.is_baseline for number in numbers) and len({number.source for number in numbers}) >= 1


def test_the_two_numbers_of_pixart_sigma_are_two_protocols() -> None:
    rewards = [one for one in load_spec("pixart-sigma-1024").anchors if one.metric == "image_reward"]
    assert sorted(one.value / one.factor for one in rewards if one.value) == pytest.approx([0.8387, 0.944])
    checked = [one for one in rewards if one.window is not None]
    assert len(checked) == 1 and checked[0].n == 5000 and checked[0].window == (0.914, 0.974)


def test_every_anchor_names_a_metric_of_its_preset_and_its_own_resolution() -> None:
    for name in preset_names():
        spec = load_spec(name)
        for anchor in spec.anchors:
            assert anchor.metric in spec.metrics, name
            assert anchor.resolution is None or str(anchor.resolution) in name


def test_the_command_for_a_preset_and_for_a_run(make_run: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["anchors", "pixart-sigma-1024", "--out", str(tmp_path)]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "0.914 to 0.974" in said and "0.944 at N = 5,000" in said and "for orientation only" in said
    assert "no run of pixart-sigma-1024" in said and "deepcompressor" in said
    assert main(["anchors", str(make_run().path)]) == 0
    assert "nothing is known" in capsys.readouterr().out
    assert len(PROMPTS) > 0


def test_a_published_model_without_a_preset_has_its_tables(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["anchors", "sdxl-1024"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "MLPerf" in said and "23.011" in said and "no preset is named sdxl-1024" in said
    assert main(["anchors", "sdxl"]) == 64


def test_the_command_finds_the_newest_run_of_a_preset(make_run: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Before a run it shows what is to be reproduced, and after it what became of each."""
    out, preset = tmp_path / "runs", tmp_path / "mine.yaml"
    text = (ROOT / "presets" / "tiny-text.yaml").read_text()
    anchors = "anchors: [{metric: fid, title: A number, value: 10, low: 9, high: 11, n: 64, source: a paper}]\n"
    preset.write_text(text.replace("name: tiny-text\n", "name: mine\n") + anchors)
    assert main(["anchors", str(preset), "--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert "A number" in said and "no run of mine" in said
    run = make_run("runs/first")
    write_json(run.path / "spec.json", dict(run.spec) | {"name": "mine"})
    recorded = [GOOD | {"low": 9.0, "high": 11.0, "n": 5000}]
    write_json(run.path / "environment.json", dict(run.environment) | {"anchors": recorded})
    History(out / "history.sqlite").append(read_run(run.path), ("mine",))
    assert main(["anchors", str(preset), "--out", str(out)]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "Good score" in said and "not comparable" in said and "5000 there" in said and "no run of" not in said


def test_a_run_shows_what_it_should_have_reproduced(make_run: Make) -> None:
    anchors = [{**GOOD, "value": 10, "low": 9.0, "high": 11.0, "n": 64}, {"metrik": 1}]
    found = apart(known(make_run(), anchors=anchors))
    assert found.anchors[0][:3] == ("Good score", "10 at N = 64", "9 to 11") and found.anchors[0][4] == "reproduced"
    assert "does not know: {'metrik': 1}" in found.strange[0]
