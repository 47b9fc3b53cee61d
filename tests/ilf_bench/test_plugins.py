"""A user's own files: whatever their names, whatever lies beside them, and whatever they do wrong."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from harness.errors import UsageError
from harness.paths import ROOT
from harness.storage.records import read_run
from ilf_bench.cli import main
from ilf_bench.plugins import load_plugin, plugin_modules, qualified_names
from ilf_bench.registry import Registry
from tests.harness.execution.test_runner import write_preset

HALF = '''
from __future__ import annotations
from contextlib import contextmanager
from dataclasses import dataclass, field

@dataclass(frozen=True)
class Half:
    """A part of the steps."""
    part: float = 0.5
    notes: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        return f"NAME({self.part:g})"

    def plan(self, plan):
        return plan.with_steps(max(2, round(len(plan.steps) * self.part)))

    @contextmanager
    def attach(self, pipeline):
        with pipeline.sampling(steps=max(2, round(pipeline.steps * self.part))):
            yield

METHODS = {"half": Half}
'''


def write(path: Path, code: str = HALF, name: str = "half") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(code.replace("NAME", name))
    return path


def test_fields_with_postponed_annotations_are_options(tmp_path: Path) -> None:
    method = Registry.of([write(tmp_path / "mine.py")]).method("half:0.25")
    assert method.label == "half(0.25)"
    with pytest.raises(UsageError, match=r"part .*valid number"):
        Registry.of([tmp_path / "mine.py"]).method("half:fast")


def test_a_run_with_a_plugin_records_where_it_comes_from(tmp_path: Path, folders: dict[str, Path]) -> None:
    mine = write(tmp_path / "mine.py")
    preset = write_preset(tmp_path, folders["dit"], methods=["full", "half"], timing={"rounds": 0, "batch": 2}, metrics=[])
    assert main(["run", str(preset), "--plugin", str(mine), "--out", str(tmp_path / "runs")]) == 0
    (folder,) = (tmp_path / "runs").glob("random-*")
    (part,) = read_run(folder).records["half(0.5)"].parts
    assert (part.plugin, part.plugin_digest) == ("mine.py", load_plugin(mine).digest)


def test_two_files_of_one_name_and_one_method_name_are_two_methods(tmp_path: Path) -> None:
    files = [write(tmp_path / "a" / "mine.py", name="first"), write(tmp_path / "b" / "mine.py", name="second")]
    registry = Registry.of(files)
    assert [registry.method(f"{folder}/mine/half").label for folder in "ab"] == ["first(0.5)", "second(0.5)"]
    with pytest.raises(UsageError, match="a/mine/half or b/mine/half"):
        registry.method("half")
    assert registry.plugins["a/mine/half"].digest != registry.plugins["b/mine/half"].digest


def test_one_file_given_twice_is_one_plugin(tmp_path: Path) -> None:
    file = write(tmp_path / "mine.py")
    assert Registry.of([file, tmp_path / "." / "mine.py"]).method("half").label == "half(0.5)"


def test_qualified_names_are_the_shortest_that_tell_files_apart() -> None:
    paths = [Path("/x/a/mine.py"), Path("/x/b/mine.py"), Path("/x/b/other.py")]
    assert list(qualified_names(paths).values()) == ["a/mine", "b/mine", "other"]
    assert qualified_names([Path("/b/mine.py"), Path("/a/b/mine.py")])[Path("/a/b/mine.py")] == "a/b/mine"


def test_a_file_imports_its_neighbours_and_its_digest_covers_them(tmp_path: Path) -> None:
    write(tmp_path / "neighbour_one.py", "import neighbour_two\nNAME = neighbour_two.NAME\n".replace("NAME", "WORD"))
    write(tmp_path / "neighbour_two.py", "WORD = 'half'\n")
    write(tmp_path / "not_imported.py", "WORD = 'other'\n")
    loaded = load_plugin(write(tmp_path / "mine.py", "from neighbour_one import WORD\n" + HALF.replace("from __future__", "#")))
    assert [file.name for file in loaded.files] == ["mine.py", "neighbour_one.py", "neighbour_two.py"]
    assert {module.__name__ for module in plugin_modules()} >= {"neighbour_one", "neighbour_two", loaded.module.__name__}
    write(tmp_path / "not_imported.py", "WORD = 'changed'\n")
    assert load_plugin(tmp_path / "mine.py").digest == loaded.digest
    write(tmp_path / "neighbour_two.py", "WORD = 'changed'\n")
    assert load_plugin(tmp_path / "mine.py").digest != loaded.digest


def test_neighbours_of_one_name_are_refused(tmp_path: Path) -> None:
    code = "import same_neighbour\n" + HALF.replace("from __future__", "#")
    for folder in "ab":
        write(tmp_path / folder / "same_neighbour.py", f"WORD = '{folder}'\n")
    load_plugin(write(tmp_path / "a" / "mine.py", code))
    with pytest.raises(UsageError, match=r"b/mine\.py imports same_neighbour; got .*a/same_neighbour\.py"):
        load_plugin(write(tmp_path / "b" / "mine.py", code))


def test_what_is_hidden_by_a_module_of_ours_is_named(tmp_path: Path) -> None:
    write(tmp_path / "metrics.py", "def mine(): pass\n")
    with pytest.raises(UsageError, match=r"metrics\.py is hidden by another module of that name"):
        load_plugin(write(tmp_path / "plugin.py", "from metrics import mine\nMETHODS = {}\n"))


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("METHODS = {'half': 3}", "METHODS"),
        ("METHODS = {'half': lambda: 3}", "dataclass"),
        ("class A: pass\nMETHODS = {'half': A}", "dataclass"),
        ("METHODS = {'a+b': None}", "METHODS"),
        (HALF.replace('{"half"', '{"a+b"'), "without : [+]"),
        (HALF.replace("def label", "def lable"), "no label"),
        (HALF.replace("def plan", "def plam").replace("def attach", "def attack"), "no plan and no attach"),
        (HALF.replace('{"half"', '{"fora"'), "fora"),
        ("METRICS = {'psnr': print}", "psnr"),
        ("1 / 0", "line 1"),
    ],
)
def test_a_file_that_is_no_plugin_is_refused(tmp_path: Path, code: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        Registry.of([write(tmp_path / "mine.py", code)])


@pytest.mark.parametrize(
    ("label", "words"), [("1 / 0", "ZeroDivisionError"), ("None", "None"), ("''", "one line"), ("'a\\nb'", "one line")]
)
def test_a_label_that_is_none_is_refused(tmp_path: Path, label: str, words: str) -> None:
    code = HALF.replace('f"NAME({self.part:g})"', label)
    with pytest.raises(UsageError, match=f"a label of half.*{words}"):
        Registry.of([write(tmp_path / "mine.py", code)]).method("half")


@pytest.mark.parametrize(
    ("plan", "words"),
    [
        ("return plan.saving([99.0] * len(plan.steps))", "at most 6 block evaluations, which step 0 costs; got 99"),
        ("return plan.saving([1.0])", "a saving for each of 4 steps; got 1"),
        ("return plan.with_steps(0)", "at least 1 step"),
        ("return 3", "a plan of half; got 3"),
        ("return plan.nothing", "a plan of half; got AttributeError"),
    ],
)
def test_a_plan_that_cannot_be_is_refused_before_anything_is_sampled(
    tmp_path: Path, folders: dict[str, Path], capsys: pytest.CaptureFixture[str], plan: str, words: str
) -> None:
    code = HALF.replace("return plan.with_steps(max(2, round(len(plan.steps) * self.part)))", plan)
    preset = write_preset(tmp_path, folders["dit"], methods=["full", "half"])
    arguments = ["run", str(preset), "--plugin", str(write(tmp_path / "mine.py", code)), "--out", str(tmp_path / "runs")]
    assert main(arguments) == 64
    assert words in capsys.readouterr().err and not (tmp_path / "runs").exists()


METRIC = '''
import numpy as np
from metrics.base import BaseMetric, to_column

class Brightness(BaseMetric):
    """The mean pixel."""
    name, title, unit = "brightness", "brightness", "0..255"

    def __init__(self, context):
        pass

    def details(self):
        return {"definition": "mean"}

    def measure(self, batch):
        return to_column(batch.images.float().mean(dim=(1, 2, 3)))

METRICS = {"brightness": Brightness}
'''


def test_a_metric_of_a_file_scores_runs_and_folders(
    tmp_path: Path, folders: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    mine = write(tmp_path / "mine.py", METRIC)
    content = {"methods": ["full"], "timing": {"rounds": 0, "batch": 2}, "samples": 4}
    preset = write_preset(tmp_path, folders["dit"], metrics=["brightness"], **content)
    assert main(["run", str(preset), "--out", str(tmp_path / "runs")]) == 64
    assert "brightness" in capsys.readouterr().err
    assert main(["run", str(preset), "--plugin", str(mine), "--out", str(tmp_path / "runs")]) == 0
    (folder,) = (tmp_path / "runs").glob("random-*")
    score = read_run(folder).scores["full", "brightness"]
    assert 0 < score.value < 255
    (samples,) = (folder / "samples").iterdir()
    arguments = ["score", str(samples), "--prompts", str(prompts(tmp_path, 4)), "--metrics", "brightness", "--task", "class"]
    assert main([*arguments, "--plugin", str(mine)]) == 0
    assert f"{score.value:.1f}" in capsys.readouterr().out


def prompts(folder: Path, n: int) -> Path:
    path = folder / "list.txt"
    path.write_text("red cat\n" * n)
    return path


WORKERS = """
import sys
from ilf_bench.cli import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.slow
def test_ray_workers_get_plugins_by_value(tmp_path: Path, folders: dict[str, Path]) -> None:
    """The worker's process has neither the file's folder on its path nor its module; it is run from elsewhere."""
    write(tmp_path / "code" / "neighbour_of_half.py", "LEAST = 2\n")
    code = HALF.replace("from contextlib", "from neighbour_of_half import LEAST\nfrom contextlib").replace("max(2", "max(LEAST")
    mine = write(tmp_path / "code" / "mine.py", code + METRIC)
    preset = write_preset(
        tmp_path, folders["dit"], methods=["full", "half"], metrics=["brightness"], timing={"rounds": 1, "batch": 2}, samples=4
    )
    content = yaml.safe_load(preset.read_text())
    assert Path(content["pipeline"]).is_absolute()
    command = ["run", str(preset), "--plugin", str(mine), "--out", str(tmp_path / "runs"), "--engine", "ray", "--workers", "1"]
    environment = {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", WORKERS, *command], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    (folder,) = (tmp_path / "runs").glob("random-*")
    run = read_run(folder)
    assert run.records["half(0.5)"].block_evaluations and run.scores["half(0.5)", "brightness"].value > 0


@pytest.mark.parametrize(
    ("check", "words"),
    [
        (
            "raise UsageError(expected='a part below 1', got='2', remedy='less')",
            r"expected half:2: a part below 1; got 2; remedy: less",
        ),
        ("self.prat", r"expected half:2 to be made; got AttributeError.*prat.*fix its `__post_init__`"),
    ],
)
def test_what_a_plugin_checks_itself_names_the_method(tmp_path: Path, check: str, words: str) -> None:
    code = HALF.replace(
        "    @property\n    def label", f"    def __post_init__(self) -> None:\n        {check}\n\n    @property\n    def label"
    )
    registry = Registry.of(
        [
            write(
                tmp_path / "strict.py",
                "from ilf_bench import UsageError\n" + code.replace("from __future__ import annotations\n", ""),
            )
        ]
    )
    with pytest.raises(UsageError, match=words):
        registry.method("half:2")
