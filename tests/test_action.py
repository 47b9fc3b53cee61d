"""The GitHub Action, its steps run here one after another as a runner would: environment from the inputs, bash, their exit codes.

In the place of a run that takes minutes, ``ilf-bench run`` writes a recorded run of the given speed; every other command is ours.
"""

from __future__ import annotations

import os
import re
import shlex
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import yaml

from harness.paths import ROOT

ACTION: dict[str, Any] = yaml.safe_load((ROOT / "action.yml").read_text())
BASH = ["bash", "--noprofile", "--norc", "-eo", "pipefail"]  # as a runner starts it
STUB = """#!{python}
import os, sys
from pathlib import Path
sys.path.insert(0, {root!r})
if sys.argv[1] == "run":
    from tests.reports.conftest import Fake, write_fake
    out = Path(sys.argv[sys.argv.index("--out") + 1])
    Path(os.environ["CALLS"]).open("a").write(f"{{Path.cwd().name}} {{' '.join(sys.argv[1:])}}\\n")
    slow = float(Path("slowdown.txt").read_text())
    write_fake(out / "tiny-text-d1", Fake(slowdown=slow, timing_seed=sum(out.name.encode())))
else:
    from ilf_bench.__main__ import entry
    entry()
"""


FAST = f"{Path(__file__).parent / 'fast_python'}:"  # a python3 that makes virtual environments without pip, which takes seconds


class Runner:
    """What a runner gives to the steps of a composite action."""

    def __init__(self, folder: Path, **inputs: str) -> None:
        self.folder, self.temp = folder, folder / "temp"
        known = {name: str(one["default"]) for name, one in ACTION["inputs"].items()}
        assert set(inputs) <= set(known), "an input that the action does not have"
        self.values = {f"inputs.{name}": value for name, value in {**known, **inputs}.items()}
        self.values |= {"runner.temp": str(self.temp), "github.action_path": str(ROOT)}
        self.summary, self.output, self.calls = folder / "summary.md", folder / "output.txt", folder / "calls.txt"
        for path in (self.summary, self.output, self.calls):
            path.touch()

    def filled(self, text: str) -> str:
        """Expressions replaced; only names that a runner knows."""
        return re.sub(r"\$\{\{ ([\w.-]+) \}\}", lambda found: self.values[found[1]], str(text))

    def do(self, name: str) -> int:
        """Run one step."""
        (step,) = [step for step in ACTION["runs"]["steps"] if step.get("name") == name]
        assert step["shell"] == "bash" and "${{" not in step["run"], "inputs reach a script as environment alone"
        script = self.folder / "step.sh"
        script.write_text(step["run"])
        given = {key: self.filled(value) for key, value in step["env"].items()}
        ours = {"GITHUB_STEP_SUMMARY": self.summary, "GITHUB_OUTPUT": self.output, "CALLS": self.calls}
        path = f"{FAST if name == 'Install' else ''}{os.environ['PATH']}"
        environment = {**os.environ, "PATH": path, **given, **{key: str(value) for key, value in ours.items()}}
        done = subprocess.run([*BASH, str(script)], cwd=self.folder, env=environment, capture_output=True, text=True, check=False)
        self.said = done.stdout + done.stderr
        return done.returncode


def prepared(folder: Path, slowdown: float, **inputs: str) -> Runner:
    """Two checkouts, installed by a command that leaves a note, with the program in the place of ours."""
    runner = Runner(folder, install="pwd > installed.txt", **{"baseline-runs": "2", "head-runs": "1", **inputs})
    for side, slow in (("base", 1.0), ("head", slowdown)):
        (folder / side).mkdir()
        (folder / side / "slowdown.txt").write_text(str(slow))
    assert runner.do("Install") == 0, runner.said
    for side in ("base", "head"):
        assert (folder / side / "installed.txt").read_text().strip() == str(folder / side)
        program = runner.temp / "ilf-bench" / "venv" / side / "bin" / "ilf-bench"
        program.write_text(STUB.format(python=sys.executable, root=str(ROOT)))
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
    return runner


@pytest.mark.documents
def test_base_and_head_run_in_turn_and_a_slower_head_fails(tmp_path: Path) -> None:
    runner = prepared(tmp_path, 1.5, methods="full,steps:8", arguments="--samples 8 --rounds 2")
    assert runner.do("Run base and head in turn") == 0, runner.said
    calls = [shlex.split(line) for line in runner.calls.read_text().splitlines()]
    assert [call[0] for call in calls] == ["base", "base", "head"]
    asked = ["run", "tiny-text", "--methods", "full,steps:8", "--samples", "8", "--rounds", "2"]
    assert all(call[1:9] == asked for call in calls) and len({call[-1] for call in calls}) == 3
    assert runner.do("Gate") == 1, runner.said
    assert "verdict=FAIL" in runner.output.read_text() and "FAIL" in runner.summary.read_text()
    report = runner.temp / "ilf-bench" / "report"
    assert ElementTree.parse(report / "gate.xml").getroot().tag in ("testsuite", "testsuites")
    assert (report / "history.html").stat().st_size > 1000


@pytest.mark.slow
def test_without_methods_the_presets_own_are_run_and_an_equal_head_is_not_stopped(tmp_path: Path) -> None:
    runner = prepared(tmp_path, 1.0)
    assert runner.do("Run base and head in turn") == 0, runner.said
    assert all("--methods" not in line for line in runner.calls.read_text().splitlines())
    assert runner.do("Gate") == 0, runner.said
    assert re.search("^verdict=(PASS|INCONCLUSIVE)$", runner.output.read_text(), re.MULTILINE)


@pytest.mark.documents
def test_a_run_that_breaks_stops_the_job(tmp_path: Path) -> None:
    runner = prepared(tmp_path, 1.0)
    (tmp_path / "head" / "slowdown.txt").unlink()
    assert runner.do("Run base and head in turn") != 0


@pytest.mark.parametrize("path", [ROOT / ".github" / "workflows" / "gate.yml", ROOT / "docs" / "gate-a-pull-request.md"])
def test_whoever_uses_it_gives_inputs_that_it_has(path: Path) -> None:
    text = path.read_text()
    pages = [text] if path.suffix == ".yml" else re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    steps = [step for page in pages for job in (yaml.safe_load(page).get("jobs") or {}).values() for step in job["steps"]]
    used = [step for step in steps if re.search(r"^\./head$|ilf-bench@", str(step.get("uses")))]
    assert used and all(set(step["with"]) <= set(ACTION["inputs"]) for step in used)
