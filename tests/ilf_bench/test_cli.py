"""Bad input through the command line: the documented exit code, one message that says what to do, and no traceback."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
import yaml

from harness.results import Failure
from harness.storage.records import read_run
from ilf_bench.cli import main
from tests.conftest import PROMPTS

USAGE, ARTIFACT = 64, 65
Run = Callable[..., tuple[int, str]]


@pytest.fixture
def preset(tmp_path: Path, folders: dict[str, Path]) -> Callable[..., str]:
    """Writes a small valid preset with changed fields and returns its path."""

    def write(task: str = "text", **changes: object) -> str:
        prompts = tmp_path / "prompts.txt"
        prompts.write_text("\n".join(PROMPTS) + "\n")
        content: dict[str, object] = {
            "name": "toy",
            "task": task,
            "pipeline": str(folders["pixart" if task == "text" else "dit"]),
            "steps": 3,
            "guidance": 2.0,
            "samples": 4,
            "batch": 2,
            "precision": "fp32",
            "device": "cpu",
            "prompts": str(prompts),
            "methods": ["full", "steps:2"],
            "metrics": [],
            "timing": {"rounds": 1, "batch": 2, "warmup": 0},
        }
        path = tmp_path / "toy.yaml"
        path.write_text(yaml.safe_dump(content | changes))
        return str(path)

    return write


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Callable[[Sequence[str]], tuple[int, str]]:
    """Runs a command that must fail; returns its exit code and what it said on standard error."""

    def call(arguments: Sequence[str]) -> tuple[int, str]:
        code = main(list(arguments))
        said = capsys.readouterr().err
        assert "Traceback" not in said and said.strip()
        assert not list(tmp_path.glob("runs/**/*.png")), "it sampled before it refused"
        return code, said

    return call


def assert_explained(code: int, said: str, expected_code: int, *words: str) -> None:
    """The code, the three parts of the message, and every word that must be named in it."""
    assert code == expected_code, said
    assert said.startswith("error: expected ") and "; got " in said and "; remedy: " in said
    assert not [word for word in words if word not in said], said


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--methods", "full,warp"], ["'warp'", "deepcache", "ilf"]),
        (["--methods", "full,deepcache:speed=3"], ["'speed=3'", "interval"]),
        (["--methods", "full,deepcache:interval=fast"], ["interval", "'fast'"]),
        (["--methods", "full,steps:0"], ["steps"]),
        (["--methods", "full,solver:foo"], ["'foo'", "ddim", "unipc"]),
        (["--methods", "full,steps:2,steps:2"], ["twice"]),
        (["--methods", "steps:2"], ["'full'"]),
        (["--methods", ","], ["methods"]),
        (["--metrics", "psnr,beauty"], ["beauty", "clip_score"]),
        (["--samples", "0"], ["samples", "greater than or equal to 1"]),
        (["--steps", "-3"], ["steps", "greater than or equal to 1"]),
        (["--seed", "-1"], ["seed"]),
        (["--precision", "fp4"], ["precision", "bf16"]),
        (["--device", "warp:0"], ["'warp:0'", "--device cpu"]),
    ],
    ids=lambda value: " ".join(value),
)
def test_wrong_option(preset: Callable[..., str], refused: Run, options: list[str], words: list[str], tmp_path: Path) -> None:
    assert_explained(*refused(["run", preset(), "--out", str(tmp_path / "runs"), *options]), USAGE, *words)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_a_gpu_that_is_not_there(preset: Callable[..., str], refused: Run) -> None:
    assert_explained(*refused(["run", preset(), "--device", "cuda"]), USAGE, "'cuda'", "--device cpu")


def test_unknown_preset_lists_the_known(refused: Run) -> None:
    assert_explained(*refused(["run", "tiny-txt"]), USAGE, "'tiny-txt'", "tiny-text", "tiny-class")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"sampels": 3}, ["sampels", "samples"]),
        ({"samples": "many"}, ["samples"]),
        ({"guidance": float("nan")}, ["guidance"]),
        ({"task": "video"}, ["task"]),
        ({"solver": "foo"}, ["'foo'"]),
        ({"timing": {"rounds": -1}}, ["timing.rounds"]),
        ({"name": "../escape"}, ["name"]),
        ({"methods": []}, ["methods"]),
    ],
    ids=lambda value: " ".join(value),
)
def test_wrong_field(preset: Callable[..., str], refused: Run, changes: dict[str, object], words: list[str]) -> None:
    path = preset()
    content = yaml.safe_load(Path(path).read_text()) | changes
    Path(path).write_text(yaml.safe_dump(content))
    assert_explained(*refused(["run", path]), USAGE, *words)


@pytest.mark.parametrize(
    "text",
    [
        "name: [unclosed",
        "just a sentence",
        "",
        "!!python/object/apply:pathlib.Path [x]",
        "name: !!python/object/apply:os.mkdir [PLACE]",
        "\x00",
    ],
    ids=["broken", "sentence", "empty", "unsafe", "unsafe-value", "zero-byte"],
)
def test_yaml_that_is_no_preset(tmp_path: Path, refused: Run, text: str) -> None:
    path = tmp_path / "preset.yaml"
    path.write_text(text.replace("PLACE", str(tmp_path / "made-by-yaml")))
    assert_explained(*refused(["run", str(path)]), USAGE, "preset.yaml")
    assert not (tmp_path / "made-by-yaml").exists()


def test_yaml_that_is_not_utf8(tmp_path: Path, refused: Run) -> None:
    path = tmp_path / "preset.yaml"
    path.write_bytes(b"name: \xff\xfe")
    assert_explained(*refused(["run", str(path)]), USAGE, "preset.yaml")


@pytest.mark.parametrize("content", [None, b"", b"\n \n", b"\xff\xfe caf\xe9"], ids=["missing", "empty", "blank", "not-utf8"])
def test_prompts_that_cannot_be_read(preset: Callable[..., str], refused: Run, tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "own-prompts.txt"
    if content is not None:
        file.write_bytes(content)
    assert_explained(*refused(["run", preset(prompts=str(file))]), USAGE, "own-prompts.txt")


@pytest.mark.parametrize(
    ("code", "word"),
    [
        (None, "Python file"),
        ("OTHER = 1\n", "METHODS"),
        ("METHODS = 3\n", "METHODS"),
        ("raise ValueError('plugin speaking')\n", "plugin speaking"),
        ("def broken(:\n", "SyntaxError"),
        ("import surely_not_installed\n", "surely_not_installed"),
    ],
    ids=["missing", "no-table", "no-mapping", "raises", "syntax", "import"],
)
def test_wrong_plugin(preset: Callable[..., str], refused: Run, tmp_path: Path, code: str | None, word: str) -> None:
    file = tmp_path / "plugin.py"
    if code is not None:
        file.write_text(code)
    assert_explained(*refused(["run", preset(), "--plugin", str(file)]), USAGE, "plugin.py", word)


def test_pipeline_that_is_not_there(preset: Callable[..., str], refused: Run, tmp_path: Path) -> None:
    assert_explained(*refused(["run", preset(), "--pipeline", str(tmp_path / "nothing")]), ARTIFACT, "model_index.json")


def test_pipeline_of_another_task(preset: Callable[..., str], refused: Run, folders: dict[str, Path]) -> None:
    assert_explained(*refused(["run", preset(), "--pipeline", str(folders["dit"])]), ARTIFACT, "DiTPipeline", "PixArt")


@pytest.mark.parametrize("damage", ["index", "config", "weights", "no-weights"])
def test_damaged_pipeline(
    preset: Callable[..., str], refused: Run, folders: dict[str, Path], tmp_path: Path, damage: str
) -> None:
    import shutil

    folder = shutil.copytree(folders["pixart"], tmp_path / "pipeline")
    weights = folder / "transformer" / "diffusion_pytorch_model.safetensors"
    if damage == "index":
        (folder / "model_index.json").write_text("{")
    elif damage == "config":
        (folder / "transformer" / "config.json").unlink()
    elif damage == "weights":
        weights.write_bytes(weights.read_bytes()[:-100])
    else:
        weights.unlink()
    arguments = ["run", preset(pipeline=str(folder)), "--out", str(tmp_path / "runs")]
    assert_explained(*refused(arguments), ARTIFACT, str(folder))


def test_ilf_without_a_module(preset: Callable[..., str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its row is timed and not scored; a checkpoint that the user names and that is not there stops the command."""
    out, path = str(tmp_path / "runs"), preset(methods=["full", "ilf", "steps:2"], metrics=["psnr"], timing={"rounds": 0})
    assert main(["run", path, "--dry-run", "--out", out]) == 0
    shown = capsys.readouterr().out
    assert "NOT-MEASURED" in shown and not (tmp_path / "runs").exists()
    assert main(["run", path, "--out", out]) == 0
    (folder,) = [path for path in (tmp_path / "runs").iterdir() if path.is_dir()]
    run = read_run(folder)
    assert [method.label for method in run.methods] == ["full", "ilf", "2 steps"] and not run.failed_methods
    failures = [score for (label, _), score in run.scores.items() if label == "ilf"]
    assert failures
    for failure in failures:
        assert isinstance(failure, Failure) and failure.reason.startswith("NOT-MEASURED: ")
        assert "ilf:checkpoint=" in failure.reason and "ilf-bench train" in failure.reason
    assert "NOT-MEASURED" in (folder / "report" / "index.html").read_text()


def test_ilf_with_a_checkpoint_that_is_not_there(preset: Callable[..., str], refused: Run, tmp_path: Path) -> None:
    methods = ["full", f"ilf:checkpoint={tmp_path / 'nowhere'}"]
    code, said = refused(["run", preset(methods=methods), "--out", str(tmp_path / "runs")])
    assert_explained(code, said, USAGE, "nowhere", "ilf:checkpoint=")


def test_out_that_cannot_be_written(preset: Callable[..., str], refused: Run, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    assert_explained(*refused(["run", preset(), "--out", str(tmp_path / "file" / "runs")]), USAGE, "--out")


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["fly"], "fly"),
        (["run", "--speed", "3"], "--speed"),
        (["run", "--steps"], "--steps"),
        (["run", "--steps", "many"], "--steps"),
        (["run", "tiny-text", "tiny-class"], "tiny-class"),
        (["score"], "FOLDER"),
        (["gate"], "--against"),
        (["report"], "RUN"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_command_line(refused: Run, arguments: list[str], word: str) -> None:
    code, said = refused(arguments)
    assert code == USAGE and said.startswith("usage error: ") and word.lower() in said.lower()


def test_other_commands(refused: Run, tmp_path: Path) -> None:
    assert_explained(*refused(["list", "colours"]), USAGE, "'colours'", "presets")
    assert_explained(*refused(["report", str(tmp_path)]), ARTIFACT, "spec.json")
    assert_explained(*refused(["gate", "--against", "abc", "--out", str(tmp_path)]), USAGE, "empty history")


def test_score_refuses_a_folder_without_images(refused: Run, tmp_path: Path) -> None:
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("red cat\n")
    code, said = refused(["score", str(tmp_path / "nothing"), "--prompts", str(prompts)])
    assert_explained(code, said, code, "nothing")
    assert code in (USAGE, ARTIFACT)


@pytest.mark.parametrize("arguments", [["--help"], ["run", "--help"], ["list", "methods"], ["list", "presets"]])
def test_help_and_lists(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    assert main(arguments) == 0
    assert capsys.readouterr().out.strip()


@pytest.mark.parametrize("task", ["text", "class"])
def test_dry_run_samples_nothing(
    preset: Callable[..., str], tmp_path: Path, capsys: pytest.CaptureFixture[str], task: str
) -> None:
    assert main(["run", preset(task), "--dry-run", "--out", str(tmp_path / "runs")]) == 0
    said = capsys.readouterr().out
    assert "block evaluations" in said and "disk" in said and not (tmp_path / "runs").exists()


def test_a_run_its_report_and_the_gate(preset: Callable[..., str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = str(tmp_path / "runs")
    assert main(["run", preset(metrics=["psnr", "ssim"]), "--out", out]) == 0
    (folder,) = [path for path in (tmp_path / "runs").iterdir() if path.is_dir()]
    assert len(list(folder.glob("samples/*/*.png"))) == 8 and (folder / "run.json").exists()
    first = (folder / "report" / "report.csv").read_bytes()
    assert main(["report", str(folder)]) == 0
    assert (folder / "report" / "report.csv").read_bytes() == first
    assert main(["history", "--out", out]) == 0
    assert "toy" in capsys.readouterr().out
    assert main(["tag", "good", str(folder), "--out", out]) == 0
    assert main(["gate", str(folder), "--against", "good", "--out", out, "--junit", f"{out}/junit.xml"]) == 3
    assert "<testcase" in (tmp_path / "runs" / "junit.xml").read_text()
    assert main(["gate", "--against", "good", "--out", out]) == 3  # nothing but the baseline itself


@pytest.mark.parametrize(
    ("content", "word"), [(None, "no such file"), (b"a text", "no .npz archive"), ("folder", "at least 2 images")]
)
def test_what_can_be_no_reference_is_refused_before_sampling(
    preset: Callable[..., str], refused: Run, tmp_path: Path, content: bytes | str | None, word: str
) -> None:
    path = tmp_path / "reference"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content == "folder":
        path.mkdir()
    code, said = refused(["run", preset("class"), "--reference", str(path), "--metrics", "fid", "--out", str(tmp_path / "runs")])
    assert_explained(code, said, ARTIFACT, word, str(path))


def test_scorers_that_are_nowhere_are_refused_before_anything_is_sampled(
    preset: Callable[..., str], tmp_path: Path, refused: Callable[[Sequence[str]], tuple[int, str]]
) -> None:
    code, said = refused(["run", preset(), "--scorers", "nosuch", "--out", str(tmp_path / "runs"), "--dry-run"])
    assert_explained(code, said, USAGE, "nosuch", "zoo/scorers")
