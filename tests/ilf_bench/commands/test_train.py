"""``ilf-bench train``: trains, resumes, and gives a module that ``run`` takes; two processes follow the curve of one."""

from __future__ import annotations

import itertools
import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from harness.paths import ROOT
from harness.sampling.pipeline import Pipeline
from harness.storage.locks import held_alone
from harness.storage.records import read_json, read_run
from harness.training.states import read_state
from ilf_bench.cli import main
from tests.ilf_bench.test_cli import preset as preset

SHORT = ["--trajectories", "6", "--steps", "4", "--batch", "4", "--rounds", "2", "--grids", "2,3"]


def settings_in(folder: Path) -> dict[str, Any]:
    """Of a saved module."""
    settings: dict[str, Any] = json.loads((folder / "config.json").read_text())["settings"]
    return settings


@pytest.mark.parametrize("task", ["text", "class"])
def test_a_trained_module_runs(preset: Callable[..., str], task: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, out = preset(task), tmp_path / "module"
    assert main(["train", path, *SHORT, "--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert "memory" in said and "final loss" in said and f"ilf:checkpoint={out}" in said
    assert settings_in(out)["steps"] == 3, "the preset's 8 are more than it was trained for"
    runs = tmp_path / "runs"
    assert main(["run", path, "--methods", f"full,ilf:checkpoint={out}:steps=3", "--out", str(runs)]) == 0
    run = read_run(next(runs.glob("toy-*")))
    method = next(m for m in run.methods if m.label != "full")
    assert method.block_evaluations == method.predicted_block_evaluations == 3 * (2 * 6 + 2)
    assert method.training_s is not None and method.training_s > 0
    weights = next(out.glob("*.safetensors"))
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    assert main(["run", path, "--methods", f"full,ilf:checkpoint={out}:steps=2", "--out", str(runs)]) == 4
    assert "SHA256SUMS" in capsys.readouterr().out, "an altered module is named, and not used"


@pytest.mark.parametrize("changed", [["--guidance-distilled", "all"], ["--rounds", "1"], ["--form", "adapter"], ["--steps", "5"]])
def test_a_folder_keeps_the_training_it_was_begun_with(
    preset: Callable[..., str], changed: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A finished training with another option was taken for one with it: the same weights, and a config that says otherwise."""
    path, out = preset("class"), tmp_path / "module"
    assert main(["train", path, *SHORT, "--out", str(out)]) == 0
    config = (out / "config.json").read_bytes()
    assert main(["train", path, *SHORT, *changed, "--out", str(out)]) == 64
    said = capsys.readouterr().err
    assert "instead of" in said and "choose another --out" in said and (out / "config.json").read_bytes() == config
    assert main(["train", path, *SHORT, "--out", str(out)]) == 0


def test_a_training_goes_on_with_its_own_prompts_and_model_alone(
    preset: Callable[..., str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Under the same paths: recorded trajectories belong to what made them."""
    path, out = preset("text"), tmp_path / "module"
    content = yaml.safe_load(Path(path).read_text())
    prompts, pipeline = tmp_path / "mine.txt", Path(shutil.copytree(content["pipeline"], tmp_path / "pipeline"))
    prompts.write_text("red cat\n\nblue dog blue dog blue dog\n")
    command = ["train", path, *SHORT, "--prompts", str(prompts), "--pipeline", str(pipeline), "--out", str(out)]
    assert main(command) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "1 blank entries were left out (numbers 2)" in said and "1 of 2 prompts is cut at 6 tokens by the T5" in said
    settings = pipeline / "scheduler" / "scheduler_config.json"
    for file, changed, what in ((prompts, "red cat\nblue cat\n", "prompts_digest"), (settings, None, "model_digest")):
        before = file.read_text()
        file.write_text(changed or json.dumps(json.loads(before) | {"beta_end": 0.03}))
        assert main(command) == 64
        assert what in capsys.readouterr().err
        file.write_text(before)
    assert main(command) == 0


def test_the_short_form_learns_from_converged_samples(preset: Callable[..., str], tmp_path: Path) -> None:
    """End to end alone, for one step count, on the ends of trajectories; a schedule is searched as with any other form."""
    path, out = preset("class"), tmp_path / "module"
    few = ["--trajectories", "6", "--grids", "3", "--set", "training.end_to_end_steps=2", "--set", "training.end_to_end_batch=2"]
    assert main(["train", path, "--form", "short", *few, "--budget", "40", "--out", str(out)]) == 0
    settings, record = settings_in(out), read_json(out / "training.json")
    assert (settings["inner_pass"], settings["steps"], settings["grids"]) == (False, 3, [3])
    assert record["settings"]["steps"] == 2 and read_json(out / "schedules.json")
    states = read_state(out / "work" / "trajectories.pt")["states"]
    assert states.shape[:2] == (6, 2), "noise and converged latents"


@pytest.mark.parametrize("form", ["adapter", "paper"])
def test_other_forms(preset: Callable[..., str], form: str, tmp_path: Path) -> None:
    assert (
        main(["train", preset("class"), *SHORT, "--form", form, "--gradient-checkpointing", "--out", str(tmp_path / form)]) == 0
    )
    assert settings_in(tmp_path / form)["inner_pass"] is (form == "paper")


def test_a_schedule_is_searched_within_a_budget(
    preset: Callable[..., str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, out = preset("class"), tmp_path / "module"
    assert main(["train", path, *SHORT, "--budget", "30", "--out", str(out)]) == 0
    tried, config = read_json(out / "schedules.json"), settings_in(out)
    assert f"best of {len(tried)} schedules" in capsys.readouterr().out
    best = tried[0]["choice"]
    assert {name: config[name] for name in ("steps", "feedback", "power")} == {k: v for k, v in best.items() if k != "cost"}
    assert all(one["choice"]["cost"] <= 30 and one["error"] >= tried[0]["error"] for one in tried)


IMAGES = ["--set", "training.image_steps=2", "--set", "training.image_targets=5", "--set", "training.recombined=0"]
OF_RIVALS = ["learning-to-cache:steps=2:trajectories=5", "bespoke:steps=2:runs=5:grids=2", "ecad:population=4:generations=1"]


@pytest.mark.parametrize(
    "chosen",
    [
        [*SHORT, *IMAGES, "--budget", "30"],
        ["--form", "short", "--trajectories", "5", "--grids", "3", "--set", "training.end_to_end_steps=2", "--budget", "40"],
        *(["--method", rival] for rival in OF_RIVALS),
    ],
)
def test_no_more_images_are_sampled_at_once_than_the_preset_says(
    preset: Callable[..., str], chosen: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A batch that fits a GPU's memory does so in every training: at 1,024 px 64 images at once do not."""
    sizes, generate = [], Pipeline.generate

    def counted(self: Pipeline, prompts: Sequence[str], *args: Any, **kwargs: Any) -> Any:
        sizes.append(len(prompts))
        return generate(self, prompts, *args, **kwargs)

    monkeypatch.setattr(Pipeline, "generate", counted)
    assert main(["train", preset("class"), *chosen, "--out", str(tmp_path / "made")]) == 0
    assert max(sizes) == 2 and sum(sizes) >= 5


def test_what_cannot_be_done_is_refused_before_the_first_trajectory(
    preset: Callable[..., str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, out = preset("class"), tmp_path / "module"
    assert main(["train", path, *SHORT, "--budget", "3", "--out", str(out)]) == 64
    assert "at least 24" in capsys.readouterr().err and not out.exists()
    for unipc in (["--set", "training.initial_solver=unipc"], ["--method", "bespoke:steps=2:initial_solver=unipc"]):
        assert main(["train", path, *unipc, "--out", str(out)]) == 64
        assert "a solver that takes free timesteps" in capsys.readouterr().err and not list(out.rglob("*.pt"))
    (tmp_path / "file").touch()
    assert main(["train", path, *SHORT, "--out", str(tmp_path / "file")]) == 64
    assert "choose another --out" in capsys.readouterr().err
    with held_alone(out / "work"):
        assert main(["train", path, *SHORT, "--out", str(out)]) == 64
    assert "at work" in capsys.readouterr().err and not list(out.rglob("*.pt"))


def test_options_without_effect_are_named(preset: Callable[..., str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    refused = ["--budget", "1", "--out", str(tmp_path / "module")]
    assert main(["train", preset("class"), "--form", "short", "--batch", "4", *refused]) == 64
    assert "no effect: batch in training, where optimiser_steps=0" in capsys.readouterr().out


def test_a_backbone_in_half_precision_is_trained_on(preset: Callable[..., str], tmp_path: Path) -> None:
    path = preset("class", precision="auto")
    assert main(["train", path, *SHORT, "--dtype", "bfloat16", "--out", str(tmp_path / "half")]) == 0
    assert json.loads((tmp_path / "half" / "training.json").read_text())["final_loss"] > 0


@pytest.mark.parametrize(
    ("extra", "word"), [(["--form", "best"], "ours"), (["--grids", "5;6"], "training.grids"), (["--seed", "0"], "--seed")]
)
def test_nonsense_is_refused(
    preset: Callable[..., str], extra: list[str], word: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = preset("class", seed=0) if "--seed" in extra else preset("class")
    assert main(["train", path, *SHORT, *extra, "--out", str(tmp_path / "module")]) == 64
    assert word in capsys.readouterr().err


def losses(record: Path) -> list[float]:
    """The loss of each step; the curve is smoothed, which would hide a difference in the later ones."""
    smoothed = [value for _, value in json.loads(record.read_text())["loss_curve"]]
    return [smoothed[0], *((now - 0.98 * before) / 0.02 for before, now in itertools.pairwise(smoothed))]


@pytest.mark.slow
def test_two_processes_follow_the_curve_of_one(preset: Callable[..., str], tmp_path: Path) -> None:
    path = preset("class")
    command = ["-m", "ilf_bench", "train", path, *SHORT]
    subprocess.run([sys.executable, *command, "--out", str(tmp_path / "one")], check=True)
    launch = [
        "-m",
        "accelerate.commands.launch",
        "--cpu",
        "--num_processes",
        "2",
        "--num_machines",
        "1",
        "--mixed_precision",
        "no",
    ]
    subprocess.run([sys.executable, *launch, *command, "--out", str(tmp_path / "two")], check=True)
    one, two = (losses(tmp_path / name / "training.json") for name in ("one", "two"))
    assert len(one) == 4 and len(set(one)) == 4
    assert one == pytest.approx(two, rel=1e-3)


@pytest.mark.parametrize(
    "start", ["nowhere", str(ROOT / "zoo" / "tiny-pixart" / "ilf-adapter")], ids=["missing", "of another model"]
)
def test_a_start_that_cannot_be_one_is_refused_before_the_first_trajectory(
    start: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", "tiny-class", "--start", start, "--out", str(tmp_path / "module")]) != 0
    printed = capsys.readouterr()
    assert start in printed.out + printed.err and not (tmp_path / "module").exists()
