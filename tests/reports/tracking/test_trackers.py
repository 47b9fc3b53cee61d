"""The history in real stores of MLflow, Weights & Biases (offline) and TensorBoard."""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from harness.errors import ArtifactError, UsageError
from harness.history.store import History
from harness.storage.layout import slug
from ilf_bench import experiment as run_command
from ilf_bench import outcome
from ilf_bench.cli import main
from reports.render.build import build_report
from reports.tracking.base import Tracked, log_history
from reports.tracking.open import open_tracker
from tests.runs import make_run, whole_run, write_samples


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """A folder of runs with one run that has images, a report and a place in the history."""
    folder = tmp_path / "runs" / "one"
    run = whole_run(folder)
    write_samples(folder, "8 steps")
    build_report(folder)
    History(tmp_path / "runs" / "history.sqlite").append(run)
    return tmp_path / "runs"


@pytest.fixture
def history(tmp_path: Path) -> History:
    history = History(tmp_path / "h.sqlite")
    history.append(make_run(tmp_path / "1", 1))
    return history


@pytest.mark.parametrize(("kind", "package"), [("mlflow:", "mlflow"), ("wandb:p", "wandb"), ("tensorboard:", "tensorboardX")])
def test_without_the_package_nothing_is_sampled(
    kind: str, package: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.setattr(run_command, "execute", lambda *_: pytest.fail("it ran"))
    assert main(["run", "tiny-text", "--track", kind]) == 64
    said = capsys.readouterr().err
    assert said.startswith(f"error: expected {package}; got none installed; remedy: pip install")


def test_an_unknown_tracker_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="one of mlflow, wandb, tensorboard before the colon of --track; got 'neptune'"):
        open_tracker("neptune:x", tmp_path)


def test_a_run_is_logged_when_it_is_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def execute(prepared: Any, out: Path, *_: object, **options: object) -> SimpleNamespace:
        History(out / "history.sqlite").append(make_run(tmp_path / "1", 1))
        return SimpleNamespace(failures=[])

    monkeypatch.setattr(outcome, "print_executed", lambda *_: None)
    monkeypatch.setattr(run_command, "execute", execute)
    command = ["run", "tiny-text", "--out", str(tmp_path), "--track", f"tensorboard:{tmp_path / 'logs'}"]
    assert main(command) == 0
    assert f"1 of 1 runs were new to {tmp_path / 'logs'}" in capsys.readouterr().out
    assert main(["export", "--out", str(tmp_path), "--track", f"tensorboard:{tmp_path / 'logs'}"]) == 0
    assert "0 of 1 runs were new" in capsys.readouterr().out


def test_verdicts_have_a_row_for_each_method(out: Path) -> None:
    history = History(out / "history.sqlite")
    (entry,) = history.runs()
    tracked = Tracked(entry, history, None)
    rows = {row[0]: row for row in tracked.verdicts()}
    assert set(rows) == {"full", "8 steps", "broken"}
    timed = [row for row in rows.values() if row[1] is not None]
    assert timed and all(low <= value <= high for _, value, low, high, *_ in timed)
    assert tracked.markdown().count("\n") == len(rows) + 1


class Events:
    """What a TensorBoard folder says, read as its format is documented (records of length, checksum, content, checksum)."""

    def __init__(self, folder: Path) -> None:
        from tensorboardX.proto.event_pb2 import Event

        self.scalars: dict[str, list[tuple[int, float]]] = defaultdict(list)
        self.texts: dict[str, str] = {}
        self.images: dict[str, bytes] = {}
        for content in self._records(folder):
            event = Event.FromString(content)
            for value in event.summary.value:
                if value.HasField("simple_value"):
                    self.scalars[value.tag].append((event.step, value.simple_value))
                elif value.HasField("image"):
                    self.images[value.tag] = value.image.encoded_image_string
                else:
                    self.texts[value.tag] = value.tensor.string_val[0].decode()

    def _records(self, folder: Path) -> Iterator[bytes]:
        (file,) = folder.glob("events.*")
        content = file.read_bytes()
        while content:
            length = int.from_bytes(content[:8], "little")
            yield content[12 : 12 + length]
            content = content[16 + length :]


def test_tensorboard_has_all_of_a_run_once(out: Path) -> None:
    history, logs = History(out / "history.sqlite"), out / "tensorboard"
    (entry,) = history.runs()
    assert main(["export", "--track", "tensorboard", "--out", str(out)]) == 0
    (folder,) = logs.iterdir()
    events = Events(folder)
    score = next(score for score in entry.scores if score.value is not None)
    assert events.scalars[f"{slug(score.method)}/{score.metric}"] == [(0, pytest.approx(score.value))]
    times = [(t.round, t.latency_s / t.batch) for t in entry.timings if t.method == entry.timings[0].method]
    logged = events.scalars[f"{slug(entry.timings[0].method)}/seconds_per_image"]
    assert [step for step, _ in logged] == [step for step, _ in times]
    assert [value for _, value in logged] == pytest.approx([value for _, value in times])
    assert entry.run_id in events.texts["specification/text_summary"] and "| method |" in events.texts["verdicts/text_summary"]
    assert events.images["samples"].startswith(b"\x89PNG")
    (folder / "complete").unlink()  # cut short: logged again, and not twice
    tracker = open_tracker("tensorboard", out)
    assert log_history(history, tracker, {}) == (1, 1) and log_history(history, tracker, {}) == (0, 1)
    assert len(list(folder.glob("events.*"))) == 1


def records_of(folder: Path) -> list[Any]:
    """What an offline run of Weights & Biases holds, read by its own package."""
    from wandb.proto import wandb_internal_pb2
    from wandb.sdk.internal.datastore import DataStore

    (file,) = folder.glob("wandb/offline-run-*/*.wandb")
    store, found = DataStore(), []
    store.open_for_scan(str(file))
    while (content := store.scan_data()) is not None:
        found.append(wandb_internal_pb2.Record.FromString(content))
    return found


def test_wandb_offline_has_all_of_a_run_once(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    history = History(out / "history.sqlite")
    (entry,) = history.runs()
    assert main(["export", "--track", "wandb:team/speed", "--out", str(out)]) == 0
    records = records_of(out)
    (run,) = [record.run for record in records if record.HasField("run")][:1]
    assert run.project == "speed" and run.entity == "team" and run.run_group == entry.preset and entry.run_id[:24] in run.run_id
    config = {item.key: json.loads(item.value_json) for item in run.config.update}
    assert config["name"] == entry.preset and config["run"]["commit"] == entry.commit
    summary: dict[str, Any] = {}
    steps: dict[str, list[float]] = defaultdict(list)
    for record in records:
        for item in record.summary.update:
            summary["/".join(item.nested_key) or item.key] = json.loads(item.value_json)
        for item in record.history.item:
            steps["/".join(item.nested_key) or item.key].append(json.loads(item.value_json))
    score = next(score for score in entry.scores if score.value is not None)
    assert summary[f"{slug(score.method)}/{score.metric}"] == pytest.approx(score.value)
    name = entry.timings[0].method
    assert steps[f"{slug(name)}/seconds_per_image"] == pytest.approx(
        [t.latency_s / t.batch for t in entry.timings if t.method == name]
    )
    assert any("verdicts" in key for key in steps) and any("samples" in key for key in steps)
    (artifact,) = [record.artifact for record in records if record.artifact.type == "ilf-bench-run"]
    names = {item.path for item in artifact.manifest.contents}
    assert {"record.json", "report/index.html"} <= names
    tracker = open_tracker("wandb:team/speed", out)
    assert log_history(history, tracker, {}) == (0, 1)


def test_a_wandb_that_refuses_is_one_message(history: History, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import wandb

    def refuse(**options: object) -> None:
        raise wandb.errors.UsageError("api_key not configured (no-tty)")

    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setattr(wandb, "init", refuse)
    with pytest.raises(ArtifactError, match="expected a usable store at wandb:x; got api_key not configured"):
        log_history(history, open_tracker("wandb:x", tmp_path), {})


def test_mlflow_has_each_run_once_with_all_of_it(out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mlflow = pytest.importorskip("mlflow")
    from reports.tracking.mlflow import TAG

    monkeypatch.delenv("MLFLOW_ALLOW_FILE_STORE", raising=False)
    history = History(tmp_path / "h.sqlite")
    first = history.append(make_run(tmp_path / "1", 1))
    tracker = open_tracker("mlflow", tmp_path)
    assert log_history(history, tracker, {}) == (1, 1)
    second = history.append(make_run(tmp_path / "2", 2))
    assert log_history(history, tracker, {second: out / "one"}) == (1, 2)
    assert log_history(history, tracker, {}) == (0, 2)
    client = mlflow.MlflowClient(tracking_uri=(tmp_path / "mlruns").as_uri())
    experiment = client.get_experiment_by_name("tiny-text")
    assert len(client.search_runs([experiment.experiment_id])) == 2
    (run,) = client.search_runs([experiment.experiment_id], f"tags.`{TAG}` = '{first}'")
    (score,) = [value for name, value in run.data.metrics.items() if name.endswith("/good")]
    assert score == pytest.approx(next(s.value for s in history.find(first).scores if s.metric == "good"))
    (times,) = [name for name in run.data.metrics if name.endswith("/seconds_per_image")]
    assert [m.value for m in client.get_metric_history(run.info.run_id, times)] == [0.25, 0.5, 0.75]
    assert run.data.tags["commit"] == "abc" and run.data.params["name"] == "tiny-text"
    assert {file.path for file in client.list_artifacts(run.info.run_id)} == {"record.json", "verdicts.md"}
    (other,) = client.search_runs([experiment.experiment_id], f"tags.`{TAG}` = '{second}'")
    assert "report" in {file.path for file in client.list_artifacts(other.info.run_id)}
