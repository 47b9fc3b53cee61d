"""Scorer commands from the command line to the report: who may name one, what is installed, and a real one."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest
import yaml

from harness.errors import ArtifactError, NotMeasured, UsageError
from harness.results import Failure, Score
from harness.storage.records import read_run
from ilf_bench import scorer_commands
from ilf_bench.cli import main
from ilf_bench.experiment import prepare
from ilf_bench.scorer_commands import command_metrics, environments, find_environment, install, user_file
from metrics.command.metric import CommandFactory
from tests.harness.execution.test_runner import write_preset
from tests.published import draw_images, save_images

FAKE = Path(__file__).parent.parent / "metrics" / "command" / "fake_scorer.py"
Printed = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))


def write_scorers(path: Path, fault: str = "none", name: str = "brightness", **more: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    (state := path.parent / f"state-{fault}").mkdir(exist_ok=True)
    commands = {name: {"command": [sys.executable, str(FAKE), fault, str(state)]}}
    path.write_text(yaml.safe_dump({"commands": commands, "bundled": "zoo/scorers", **more}))
    return path


def started(scorers: Path, fault: str = "none") -> bool:
    return (scorers.parent / f"state-{fault}" / "starts").exists()


def preset(folder: Path, pipelines: dict[str, Path], **fields: object) -> Path:
    chosen = {"methods": ["full", "steps:2"], "samples": 4, "timing": {"rounds": 0, "batch": 2}, **fields}
    return write_preset(folder, pipelines["pixart"], **chosen)


def test_a_run_scores_with_a_command_beside_networks(folders: dict[str, Path], tmp_path: Path) -> None:
    scorers = write_scorers(tmp_path / "mine" / "scorers.yaml")
    path = preset(tmp_path, folders, metrics=["psnr", "ssim", "brightness"])
    assert main(["run", str(path), "--out", str(tmp_path / "runs"), "--scorers", str(scorers)]) == 0
    (folder,) = (entry for entry in (tmp_path / "runs").iterdir() if entry.is_dir())
    run = read_run(folder)
    for metric in ("ssim", "brightness"):
        assert isinstance(run.scores["2 steps", metric], Score), metric
    score = run.scores["full", "brightness"]
    assert isinstance(score, Score) and score.fingerprint["weights"] == "none-1" and score.title == "brightness"
    black = run.controls["black", "brightness"]
    assert isinstance(black, Score) and black.value == 0


def test_a_folder_is_scored_by_a_command_and_the_tiny_networks(tmp_path: Path, capsys: Printed) -> None:
    scorers = write_scorers(tmp_path / "mine" / "scorers.yaml")
    folder = save_images(draw_images(3, side=32), tmp_path / "images")
    (tmp_path / "prompts.txt").write_text("a cat\n" * 3)
    command = ["score", str(folder), "--prompts", str(tmp_path / "prompts.txt"), "--metrics", "clip_score,brightness"]
    assert main([*command, "--scorers", str(scorers)]) == 0
    said = capsys.readouterr().out
    assert "CLIP score (tiny)" in said and "brightness" in said
    assert main(command) == 64, "without the file there is no such metric"


def test_a_command_that_fails_stops_no_other_metric(folders: dict[str, Path], tmp_path: Path, capsys: Printed) -> None:
    scorers = write_scorers(tmp_path / "mine" / "scorers.yaml", "banner")
    path = preset(tmp_path, folders, metrics=["ssim", "brightness"])
    assert main(["run", str(path), "--out", str(tmp_path / "runs"), "--scorers", str(scorers)]) != 0
    (folder,) = (entry for entry in (tmp_path / "runs").iterdir() if entry.is_dir())
    run = read_run(folder)
    failed = run.scores["full", "brightness"]
    assert isinstance(failed, Failure) and "'Loading model ...'" in failed.reason
    assert isinstance(run.scores["2 steps", "ssim"], Score)
    assert "Loading model" in capsys.readouterr().out


def test_a_file_that_a_preset_names_starts_nothing(folders: dict[str, Path], tmp_path: Path) -> None:
    scorers = write_scorers(tmp_path / "theirs" / "scorers.yaml")
    path = preset(tmp_path, folders, metrics=["psnr"], scorers=str(scorers))
    with pytest.raises(UsageError, match=r"starts no program.*commands: brightness; remedy: read it, and name it with --scorers"):
        prepare(str(path), {})
    assert main(["run", str(path), "--out", str(tmp_path / "runs")]) == 64
    assert not started(scorers) and not (tmp_path / "runs").exists()
    with pytest.raises(UsageError, match="metrics out of"):
        prepare(str(preset(tmp_path, folders, metrics=["brightness"], scorers=str(scorers))), {})


def test_the_users_own_file_holds_for_every_run_and_the_command_line_goes_before_it(tmp_path: Path) -> None:
    write_scorers(user_file(), "none")
    table = command_metrics(None)
    assert isinstance(table["brightness"], CommandFactory) and "none" in table["brightness"].spec.command
    named = command_metrics(write_scorers(tmp_path / "named.yaml", "stderr"))["brightness"]
    assert isinstance(named, CommandFactory) and "stderr" in named.spec.command
    assert command_metrics(Path("zoo/scorers")).keys() == table.keys(), "a folder of networks names no command"


def test_a_built_in_name_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="fid, a built-in metric"):
        command_metrics(write_scorers(tmp_path / "s.yaml", name="fid"))


def test_what_is_not_installed_names_its_command(tmp_path: Path, capsys: Printed) -> None:
    table = command_metrics(None)
    assert {"brisque", "hpsv3", "vqascore", "geneval"} <= table.keys()
    with pytest.raises(NotMeasured, match=r"ilf-bench scorers install imscore \(8 GB"):
        table["vqascore"](None)  # type: ignore[arg-type]
    assert main(["scorers"]) == 0
    said = capsys.readouterr().out
    assert "not installed" in said and "geneval" in said and str(user_file()) in said.replace("\n", "")
    assert main(["list", "metrics"]) == 0
    assert "a scorer command; see ilf-bench scorers" in capsys.readouterr().out
    assert main(["scorers", "install", "nothing"]) == 64


@pytest.mark.parametrize("name", environments())
def test_every_package_of_an_environment_is_pinned_with_its_hash(name: str) -> None:
    source = environments()[name].source
    lines = [line for line in (source / "requirements.txt").read_text().splitlines() if not line.startswith("#")]
    assert lines and all("==" in line and " --hash=sha256:" in line for line in lines)
    pinned = {line.split("==")[0].replace("_", "-") for line in lines}
    for line in (source / "requirements.in").read_text().splitlines():
        wanted = line.split("#")[0].split("=")[0].split("<")[0].strip().replace("_", "-")
        assert wanted.lower() in pinned
    assert environments()[name].about.metrics and (source / "scorer.py").read_text().startswith('"""')


def test_an_installation_of_other_files_is_outdated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scorer_commands, "ENVIRONMENTS", tmp_path / "ours")
    shutil.copytree(find_environment_source("brisque"), tmp_path / "ours" / "toy")
    (tmp_path / "ours" / "toy" / "requirements.txt").write_text("")
    monkeypatch.setattr(scorer_commands, "_run", lambda command, what: None)
    toy = find_environment("toy")
    assert toy.state == "not installed"
    install(toy)
    assert toy.state == "outdated", "without its interpreter it is no environment"
    toy.python.parent.mkdir(parents=True)
    toy.python.touch()
    assert toy.state == "installed" and (toy.folder / "ilf_bench_scorer.py").exists()
    (tmp_path / "ours" / "toy" / "scorer.py").write_text("'''Another.'''\n")
    assert toy.state == "outdated"


def find_environment_source(name: str) -> Path:
    return Path(scorer_commands.__file__).parents[1] / "metrics" / "command" / "environments" / name


def test_a_failed_installation_says_what_pip_said(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"an environment of its own; got .*no-such-python"):
        install(find_environment("brisque"), "no-such-python")
    assert find_environment("brisque").state == "not installed"


@pytest.mark.documents
def test_a_real_command_in_its_own_environment(tmp_path: Path, capsys: Printed) -> None:
    """BRISQUE with NumPy and OpenCV of other versions than here: noise is worse than smooth colours."""
    assert main(["scorers", "install", "brisque"]) == 0
    assert find_environment("brisque").state == "installed"
    folder = save_images(draw_images(4, side=96), tmp_path / "images")
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("x\n" * 4)
    capsys.readouterr()
    assert main(["score", str(folder), "--prompts", str(prompts), "--metrics", "brisque"]) == 0
    assert "BRISQUE" in capsys.readouterr().out
    assert main(["scorers", "try", "brisque"]) == 0
    said = capsys.readouterr().out
    rows = {cells[1].strip(): cells[2].strip() for line in said.splitlines() if len(cells := line.split("│")) == 4}
    assert rows["a picture"] == rows["the same again"] and float(rows["noise"]) > float(rows["a picture"])
    assert "no finite value" in rows["black"] and rows["package numpy"].startswith("2.2")
