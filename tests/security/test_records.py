"""One bad record is refused by name where it is read or about to enter; none of its names leads anywhere."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.errors import ArtifactError
from harness.history.store import History
from harness.results import Score, TimingSample
from harness.storage.arrays import write_array
from harness.storage.layout import Layout, slug
from harness.storage.records import Run, read_json, read_run, write_json
from reports.render.build import build_paper, build_report
from tests.reports.conftest import Fake, write_fake

HUGE = 1e308
CONTROL = "a\x1b[2J\nb"


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return write_fake(tmp_path / "run", Fake(n=8, rounds=3))


def edit(path: Path, change: Callable[[Any], Any]) -> None:
    """Change a record, and seal it again, as whoever can write the folder can."""
    write_json(path, change(read_json(path)))


def set_field(name: str, value: Any) -> Callable[[Any], Any]:
    def change(content: Any) -> Any:
        if isinstance(content, list):
            return [content[0] | {name: value}, *content[1:]]
        return content | {name: value}

    return change


def bad(path: str, *pairs: tuple[str, Any]) -> list[tuple[str, str, Any]]:
    return [(path, name, value) for name, value in pairs]


BAD = [
    *bad(
        "timing/000.json",
        *(("latency_s", value) for value in (HUGE, -1.0, 0.0, "1", None, True, [1])),
        *(("batch", value) for value in (0, -1, 10**30, 1.5, "4")),
        ("round", 10**40),
        ("denoise_s", HUGE),
        ("peak_memory_bytes", -1),
        ("power_w", HUGE),
        ("method", ""),
        ("method", CONTROL),
        ("method", "x" * 300),
        ("more", 1),
    ),
    *bad(
        f"methods/{slug('8 steps')}.json",
        *(("block_evaluations", value) for value in (HUGE, -5, "480")),
        ("steps", 10**20),
        ("kind", "magic"),
        ("label", "another"),
        ("label", CONTROL),
        ("spec", "\u202e"),
        ("training_s", HUGE),
        ("parts", [{"name": "x"}]),
        ("timesteps", ["a"]),
    ),
    *bad(
        f"scores/{slug('8 steps')}/good.json",
        *(("value", value) for value in (HUGE, 1e6, "8")),
        *(("n", value) for value in (0, 7, -8, 10**9)),
        *(("metric", value) for value in ("../../../x", "far", "A b", "", "x/y", "x" * 200)),
        ("method", "full"),
        ("direction", "up"),
        ("tiny", "yes"),
        ("title", CONTROL),
        ("fingerprint", {"a": 1}),
        ("fingerprint", "x"),
    ),
    *bad(
        "spec.json",
        *(("name", value) for value in ("../x", "", "a b", 5, None)),
        ("method_labels", ["full", "full"]),
        ("method_labels", "full"),
        ("method_labels", [1]),
        ("metrics", ["../x"]),
        ("timing", {"batch": 0}),
        ("timing", []),
        ("samples", -1),
        ("title", CONTROL),
        ("format", True),
    ),
    *bad("environment.json", ("commit", 5), ("created", CONTROL), ("prompts", "x"), ("dirty", "no"), ("machine_key", {})),
]


@pytest.mark.parametrize(("file", "name", "value"), BAD, ids=str)
def test_a_bad_record_is_refused_by_name(file: str, name: str, value: Any, run: Run) -> None:
    edit(run.path / file, set_field(name, value))
    for work in (read_run, build_report, build_paper):
        with pytest.raises(ArtifactError) as caught:
            work(run.path)
        assert "remedy" in str(caught.value) and str(run.path) in str(caught.value)
    assert not (run.path / "report").exists()


def replaced_score(run: Run, **changed: Any) -> Run:
    key = ("8 steps", "good")
    score = run.scores[key]
    assert isinstance(score, Score)
    return replace(run, scores={**run.scores, key: replace(score, **changed)})


def test_a_bad_record_does_not_enter_a_history(run: Run, tmp_path: Path) -> None:
    history = History(tmp_path / "history.sqlite")
    calls = run.timings
    for worse in (
        replace(run, timings=(replace(calls[0], latency_s=HUGE), *calls[1:])),
        replace(run, timings=(replace(calls[0], batch=0), *calls[1:])),
        replace(run, spec={**run.spec, "name": "../x"}),
        replaced_score(run, value=5.0),
        replaced_score(run, influence=np.full(8, HUGE), per_image=np.full(8, HUGE), value=HUGE),
        replaced_score(run, metric="../../x"),
    ):
        with pytest.raises(ArtifactError):
            history.append(worse)
    assert history.runs() == ()
    history.append(run)
    assert len(history.runs()) == 1


@pytest.mark.parametrize("values", [[HUGE] * 8, [np.nan] * 8, [1.0] * 7, [[1.0]] * 8])
def test_values_that_no_report_can_bear_are_refused(values: list[Any], run: Run) -> None:
    files = Layout(run.path).score("8 steps", "good")
    digest = write_array(files.array, np.array(values))
    edit(files.record, lambda content: content | {"digests": {"influence": digest}, "per_image": "influence", "value": 1.0})
    with pytest.raises(ArtifactError, match="mean of its values"):
        read_run(run.path)


def test_a_metric_writes_nowhere_else(run: Run, tmp_path: Path) -> None:
    """Under its own name in its own place the metric was fine until its name led elsewhere."""
    record = Layout(run.path).score("8 steps", "good").record
    content = read_json(record) | {"metric": "../../../../planted"}
    for place in (record, record.parent.parent / "planted.json"):
        write_json(place, content)
        with pytest.raises(ArtifactError):
            build_paper(run.path)
        place.unlink()
    assert not list(tmp_path.rglob("planted*"))


def test_a_manifest_names_images_of_its_folder(run: Run) -> None:
    manifest = Layout(run.path).samples("full").manifest
    for name in ("../../../secret.png", "/etc/hostname", "x.svg", "000000.html", "", 5, "..", "000000.png/../000001.png"):
        content = read_json(manifest)
        content["samples"][0]["file"] = name
        write_json(manifest, content)
        with pytest.raises(ArtifactError):
            build_report(run.path)


def test_half_a_letter_is_refused(run: Run) -> None:
    path = Layout(run.path).environment
    path.write_text(json.dumps(read_json(path) | {"device_name": "\ud800"}))
    with pytest.raises(ArtifactError):
        read_run(run.path)


def test_the_checks_know_every_field_that_is_written() -> None:
    """What the program itself writes passes: the smallest and the largest values that it can measure."""
    from harness.storage.checks import check_fields

    small = TimingSample("full", -1, 1, 1e-9, 0.0, 1e-9, 0.0, 0)
    large = TimingSample("full", 10**7, 10**6, 1e7, 1e6, 1e7, 1e6, 10**14, 1e5, 3000, -40, 1e4, "hot", 1e7)
    for sample in (small, large):
        check_fields(TimingSample, {field.name: getattr(sample, field.name) for field in fields(sample)}, Path("x"))


FILES = ["spec.json", "timing/000.json", f"methods/{slug('8 steps')}.json", f"scores/{slug('8 steps')}/good.json"]


@pytest.mark.parametrize("file", FILES)
def test_a_missing_field_is_refused_or_not_needed(file: str, run: Run) -> None:
    """Whichever field is left out, a report is built or one error says what is wrong."""
    whole = read_json(run.path / file)
    for name in whole[0] if isinstance(whole, list) else whole:
        left = {key: value for key, value in (whole[0] if isinstance(whole, list) else whole).items() if key != name}
        write_json(run.path / file, [left, *whole[1:]] if isinstance(whole, list) else left)
        try:
            build_report(run.path)
        except ArtifactError as error:
            assert str(run.path) in str(error)


@pytest.mark.parametrize("work", [build_report, lambda run: History(run.parent / "h.sqlite").append(read_run(run))])
@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("run.json", "[1, 2]"),
        ("run.json", '"x"'),
        ("measurements/full/features.json", "[]"),
        ("measurements/full/features.json", "{}"),
        ("environment.json", '{"zzz": NaN}'),
        ("environment.json", '{"zzz": 1e999}'),
    ],
)
def test_a_record_of_another_shape_is_one_error_that_names_it(
    name: str, text: str, work: Callable[[Path], object], run: Run
) -> None:
    (run.path / name).parent.mkdir(parents=True, exist_ok=True)
    (run.path / name).write_text(text)
    with pytest.raises(ArtifactError) as raised:
        work(run.path)
    assert str(run.path / name) in str(raised.value)
