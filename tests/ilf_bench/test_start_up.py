"""What reads a finished run loads neither torch nor what is built on it, and what only lists loads no model library."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from harness.history.store import History
from tests.reports.conftest import Fake, write_fake

MODELS = ("diffusers", "transformers", "torchmetrics", "accelerate")
TORCH = ("torch", *MODELS)
TABLES = ("pandas", "matplotlib", "scipy", "jinja2", "numpy")
# Steps in this order in one process, so that each is charged with what it loads first; modules that must not be there after it.
STEPS = """
import contextlib, io, json, sys
from pathlib import Path

run, out, banned = json.loads(sys.argv[1])
found = {}

def loaded(step, names):
    found[step] = [name for name in banned[names] if name in sys.modules]

def call(step, *arguments, names="torch"):
    from ilf_bench.cli import main
    with contextlib.redirect_stdout(io.StringIO()):
        code = main([*arguments])
    assert code in (0, 3), (step, code)
    loaded(step, names)

call("--help", "--help", names="tables")
call("--version", "--version", names="tables")
import reports
loaded("import reports", "torch")
import ilf_bench
ilf_bench.load_run(run)
loaded("load_run", "torch")
call("history", "history", "--out", out, "--html", out + "/history.html")
call("compare", "compare", run, run, "--out", out)
call("gate", "gate", run, "--against", run, "--out", out, "--markdown", out + "/gate.md", "--junit", out + "/gate.xml")
call("report", "report", run)
call("power", "power", run, "--out", out)
call("bundle", "bundle", run, out + "/run.zip")
call("verify", "verify", out + "/run.zip")
call("tag", "tag", "first", run, "--out", out)
call("export", "export", out + "/history.json", "--out", out)
call("import", "import", out + "/history.json", "--out", out)
call("list presets", "list", "presets")
call("list methods", "list", "methods", names="models")
from harness.models.families.table import families
for name, family in families().items():
    assert family.title and all(architecture.configs for architecture in family.architectures.values()), name
loaded("families", "models")
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """What was found loaded after each step, of what must not be."""
    out = tmp_path_factory.mktemp("runs")
    run = write_fake(out / "fake", Fake())
    History(out / "history.sqlite").append(run)
    banned = {"torch": TORCH, "models": MODELS, "tables": (*TORCH, *TABLES)}
    command = [sys.executable, "-c", STEPS, json.dumps([str(run.path), str(out), banned])]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    content: dict[str, list[str]] = json.loads(done.stdout.splitlines()[-1])
    return content


NAMES = {
    *("--help", "--version", "history", "compare", "gate", "report", "power", "bundle", "verify", "tag", "export", "import"),
    *("import reports", "load_run", "list presets", "list methods", "families"),
}


@pytest.mark.parametrize("step", sorted(NAMES))
def test_nothing_heavy_is_loaded(loaded: dict[str, list[str]], step: str) -> None:
    assert loaded[step] == []


def test_every_step_is_looked_at(loaded: dict[str, list[str]]) -> None:
    assert set(loaded) == NAMES


def test_a_wrong_preset_is_refused_before_torch_is_loaded(tmp_path: Path) -> None:
    code = "import sys; from ilf_bench.cli import main; code = main(sys.argv[1:]); print(code, 'torch' in sys.modules)"
    command = [sys.executable, "-c", code, "run", "tiny-text", "--samples", "0", "--out", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["64", "False"] and "samples" in done.stderr
