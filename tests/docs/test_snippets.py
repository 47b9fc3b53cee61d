"""Every snippet of README and docs works: commands at toy size, Python as it stands.

Not run, but checked as far as a CPU without a network allows:

- ``ilf-bench`` on published models or a Ray cluster needs a download, a GPU or the cluster. The command line parses it.
- ``python -m``, ``make``, ``accelerate``: minutes to hours of work. Module, target and options must exist.
- ``pip install``: needs a package index. The constraints file must exist.
- Fences without a language that is run (``text``, ``bibtex``): what a command printed, and a citation.
"""

from __future__ import annotations

import io
import re
import shutil
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from harness.config.spec import ExperimentSpec
from harness.paths import ROOT
from ilf_bench.cli import app, main
from ilf_bench.registry import GROUPS
from metrics.published.spec import Scorers
from tests.docs.snippets import PAGES, Fence, commands, fences

BUNDLED = ("tiny-text", "tiny-class", "tiny-flow")
RUN = ["--samples", "6", "--rounds", "2", "--warmup", "0", "--batches", "2", "--steps", "4"]
TRAIN = ["--trajectories", "4", "--steps", "2", "--batch", "2", "--rounds", "1", "--grids", "4"]
TRAIN += ["--set", "training.end_to_end_steps=2", "--set", "training.end_to_end_batch=2"]
CODES = {"gate": {0, 1, 2, 3}, "score": {0, 4}, "doctor": {0, 1}}
PROGRAMS = {"make", "python", "accelerate", ".ci/run", "pip"}


@pytest.fixture(scope="module")
def sandbox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with two finished runs of the bundled text model, and what the commands name."""
    folder = tmp_path_factory.mktemp("sandbox")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for name in ("zoo", "presets", "docs"):
            (folder / name).symlink_to(ROOT / name)
        measured = ["--methods", "full,steps:2", "--metrics", "psnr,kid"]
        for seed in ("1000", "1001"):
            assert main(["run", "tiny-text", *RUN, *measured, "--seed", seed]) == 0
        images = next((folder / "runs").glob("*/samples/full*"))
        shutil.copytree(images, folder / "FOLDER", ignore=shutil.ignore_patterns("*.json"))
        shutil.copytree(folder / "FOLDER", folder / "OTHER")
        shutil.copy(ROOT / "metrics" / "command" / "serve.py", folder / "ilf_bench_scorer.py")
        (folder / "weights.pt").write_bytes(b"weights")
        (folder / "prompts.txt").write_text("cat\n" * 6)
        shutil.copy(ROOT / "presets" / "tiny-text.yaml", folder / "my-preset.yaml")
        (half,) = [fence.text for fence in fences(ROOT / "README.md") if "class HalfSteps" in fence.text]
        (folder / "half.py").write_text(half)
        yield folder


def filled(text: str, folder: Path) -> str:
    """Placeholders of the pages replaced by the two runs, and an object store by one that needs no package."""
    first, second = (path.name for path in sorted((folder / "runs").glob("tiny-text-*")))
    for placeholder, name in (("RUN", first), ("BASELINE", first), ("OTHER", second)):
        text = text.replace(f"runs/{placeholder}", f"runs/{name}")
    text = text.replace("s3://", "memory://")
    features = next((folder / "runs" / first).rglob("features-*.npy")).stem
    return re.sub(r"features-[0-9a-f]{12}", features, {"A": f"runs/{first}", "B": f"runs/{second}"}.get(text, text))


def parses(arguments: list[str]) -> None:
    """The command line takes these arguments; nothing is run."""
    group: Any = typer.main.get_command(app)
    group.commands[arguments[0]].make_context(arguments[0], arguments[1:])


def needs_more_than_this(arguments: list[str]) -> bool:
    """Published weights, a cluster or another machine's paths; a run that has measured the module that it is pushed with."""
    if arguments[0] == "push":
        return "--run" in arguments
    return arguments[0] in ("run", "train") and (arguments[1] not in (*BUNDLED, "my-preset.yaml") or "--address" in arguments)


def run(arguments: list[str], folder: Path) -> None:
    """A command at toy size."""
    arguments = [filled(word, folder) for word in arguments]
    if needs_more_than_this(arguments) or "..." in arguments:
        parses([word for word in arguments if word != "..."])
        return
    extra = {"run": ["--dry-run", "--samples", "4"], "train": [*TRAIN, "--steps", "2"], "push": ["--dry-run"]}.get(
        arguments[0], []
    )
    assert main([*arguments, *extra]) in CODES.get(arguments[0], {0}), arguments


def exists(program: str, arguments: list[str]) -> None:
    """What a command of the repository names: target, module, file, options."""
    if program == "make":
        targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
        assert set(word for word in arguments if "=" not in word) <= {*targets, "test-metrics"}, arguments
    elif program == ".ci/run":
        assert (ROOT / program).exists()
    elif program == "pip":
        assert (ROOT / arguments[arguments.index("--constraint") + 1]).exists() if "--constraint" in arguments else True
    elif program == "python" and arguments[:2] not in (["-m", "pytest"], ["-m", "venv"]):
        name = arguments[1].replace(".", "/") + ".py" if arguments[0] == "-m" else arguments[0]
        source = (ROOT / name).read_text()
        for option in (word for word in arguments if word.startswith("--")):
            assert option in source or f"{option[2:].replace('-', '_')}:" in source, (name, option)


@pytest.mark.documents
@pytest.mark.parametrize("page", [page for page in PAGES if commands(page)], ids=lambda page: page.relative_to(ROOT).as_posix())
def test_commands(page: Path, sandbox: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(sandbox)
    for program, *arguments in commands(page):
        name = program.rpartition("bin/")[2]
        if name == "ilf-bench":
            run(arguments, sandbox)
        else:
            assert name in PROGRAMS
            exists(name, arguments)


PYTHON = [fence for page in PAGES for fence in fences(page) if fence.language == "python"]


@pytest.mark.parametrize("fence", PYTHON, ids=lambda fence: f"{fence.page.name}-{fence.text.split()[1]}")
def test_python(fence: Fence, sandbox: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(sandbox)
    monkeypatch.syspath_prepend(str(sandbox))
    monkeypatch.setattr("sys.stdin", io.StringIO())  # a scorer command is asked nothing, and ends
    names: dict[str, Any] = {"__name__": "__main__"}
    exec(compile(filled(fence.text, sandbox), str(fence.page), "exec"), names)
    if "images" in names:
        assert names["images"][0].size == (32, 32)
        names["applied"].remove()


@pytest.mark.parametrize("fence", [f for page in PAGES for f in fences(page) if f.language == "yaml"], ids=lambda f: f.page.name)
def test_yaml(fence: Fence) -> None:
    content = yaml.safe_load(fence.text)
    if content.keys() <= ExperimentSpec.model_fields.keys():
        return
    if "jobs" in content:  # a workflow: it gives the action inputs that it has
        (used,) = [step for job in content["jobs"].values() for step in job["steps"] if "ilf-bench@" in step["uses"]]
        assert used["with"].keys() <= yaml.safe_load((ROOT / "action.yml").read_text())["inputs"].keys()
        return
    Scorers(**content)


@pytest.mark.parametrize("fence", [f for page in PAGES for f in fences(page) if f.language == "toml"], ids=lambda f: f.page.name)
def test_entry_points(fence: Fence) -> None:
    groups = tomllib.loads(fence.text)["project"]["entry-points"]
    assert set(groups) <= set(GROUPS.values()) and all(":" in target for group in groups.values() for target in group.values())


def test_no_other_language_is_shown() -> None:
    assert {fence.language for page in PAGES for fence in fences(page)} <= {"python", "yaml", "text", "bibtex", "toml"}
