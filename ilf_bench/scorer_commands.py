"""Which scorer commands there are: those of a scorers' file named on the command line, of the user's own configuration, and those
that ``ilf-bench scorers install`` has put into environments of their own. No preset, run or bundle starts one.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal, NoReturn

from pydantic import BaseModel, ConfigDict, Field

from harness.errors import ArtifactError, NotMeasured, UsageError
from harness.storage.documents import parse_yaml
from metrics.command.metric import CommandFactory
from metrics.command.spec import CommandSpec
from metrics.context import MetricContext
from metrics.published.spec import Scorers, read_scorers
from metrics.table import METRICS, MetricTable

ENVIRONMENTS = Path(__file__).resolve().parents[1] / "metrics" / "command" / "environments"
SERVE = ENVIRONMENTS.parent / "serve.py"
STAMP, SCORER, REQUIREMENTS = "installed.json", "scorer.py", "requirements.txt"
GUIDE = "docs/scorer-commands.md"
State = Literal["installed", "outdated", "not installed"]


class About(BaseModel):
    """``environment.yaml`` of an environment: its metrics with the arguments of scorer.py, and what was seen to work."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    title: str
    metrics: dict[str, tuple[str, ...]] = Field(min_length=1)
    size: str
    seen: str


@dataclass(frozen=True)
class Environment:
    """One of ours: a folder with environment.yaml, scorer.py and requirements.txt (pinned, each file with its SHA-256)."""

    name: str

    @property
    def source(self) -> Path:
        """Where its files are kept."""
        return ENVIRONMENTS / self.name

    @property
    def folder(self) -> Path:
        """Where it is installed."""
        return cache_folder() / self.name

    @property
    def about(self) -> About:
        """What it says of itself."""
        return About.model_validate(parse_yaml((self.source / "environment.yaml").read_bytes()))

    @property
    def digest(self) -> str:
        """SHA-256 of everything that an installation is made of."""
        total = hashlib.sha256()
        for file in (*sorted(self.source.glob("*.*")), SERVE):
            total.update(file.name.encode() + b"\0" + hashlib.sha256(file.read_bytes()).digest())
        return total.hexdigest()

    @property
    def python(self) -> Path:
        """Its interpreter."""
        return self.folder / "venv" / "bin" / "python"

    @property
    def state(self) -> State:
        """Whether it is installed as these files say."""
        try:
            known = json.loads((self.folder / STAMP).read_text(encoding="utf-8"))["digest"]
        except (OSError, ValueError, KeyError, TypeError):
            return "not installed"
        return "installed" if known == self.digest and self.python.exists() else "outdated"

    def command(self, metric: str) -> CommandSpec:
        """What serves one of its metrics."""
        return CommandSpec(command=(str(self.python), str(self.folder / SCORER), *self.about.metrics[metric]))


def environments() -> dict[str, Environment]:
    """Ours, by name."""
    return {path.parent.name: Environment(path.parent.name) for path in sorted(ENVIRONMENTS.glob("*/environment.yaml"))}


def cache_folder() -> Path:
    """``$XDG_CACHE_HOME/ilf-bench/scorers``."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ilf-bench" / "scorers"


def user_file() -> Path:
    """The user's own configuration: a scorers' file whose ``commands`` hold for every run."""
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "ilf-bench" / "scorers.yaml"


def find_environment(name: str) -> Environment:
    """One of ours. Raises :class:`UsageError`."""
    known = environments()
    if name not in known:
        raise UsageError(expected=f"an environment out of {', '.join(known)}", got=repr(name), remedy=f"see {GUIDE}")
    return known[name]


def install(environment: Environment, python: str = sys.executable) -> None:
    """Make the environment: a new one each time, and its stamp last. Raises :class:`ArtifactError` with pip's last word."""
    shutil.rmtree(environment.folder, ignore_errors=True)
    environment.folder.mkdir(parents=True)
    _run([python, "-m", "venv", str(environment.folder / "venv")], "an environment of its own")
    pip = [str(environment.python), "-m", "pip", "install", "--disable-pip-version-check", "--quiet", "--no-deps"]
    _run([*pip, "--require-hashes", "--requirement", str(environment.source / REQUIREMENTS)], "its packages, hashes and all")
    for file in environment.source.glob("*.py"):
        shutil.copy(file, environment.folder / file.name)
    shutil.copy(SERVE, environment.folder / "ilf_bench_scorer.py")
    (environment.folder / STAMP).write_text(json.dumps({"digest": environment.digest}) + "\n", encoding="utf-8")


def _run(command: Sequence[str], what: str) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True)
        said = [line for line in (done.stderr or done.stdout).splitlines() if line.strip()] if done.returncode else []
        fault = (said[-1].strip()[:500] if said else f"exit code {done.returncode}") if done.returncode else ""
    except OSError as error:
        fault = str(error)
    if fault:
        raise ArtifactError(expected=what, got=fault, remedy=f"run it by hand: {' '.join(command)}")


def command_metrics(scorers: Path | None) -> MetricTable:
    """Metrics by command: of the file named by ``--scorers``, then the user's own, then the installed environments.

    ``scorers`` may be None or a folder of networks. One that would have to be installed first is there, too, and says so when
    it is built. Raises :class:`UsageError` on a name that is built in.
    """
    table: dict[str, CommandFactory | partial[NoReturn]] = {}
    for environment in environments().values():
        for metric in environment.about.metrics:
            ready = environment.state == "installed"
            table[metric] = (
                CommandFactory(metric, environment.command(metric)) if ready else partial(_missing, metric, environment)
            )
    for name, spec in {**_commands(user_file()), **({} if scorers is None else _commands(scorers))}.items():
        if name in METRICS:
            raise UsageError(expected="a command of another name", got=f"{name}, a built-in metric", remedy="rename it")
        table[name] = CommandFactory(name, spec)
    return table


def _commands(file: Path) -> Mapping[str, CommandSpec]:
    return read_scorers(file).commands if file.is_file() else {}


def _missing(metric: str, environment: Environment, context: MetricContext) -> NoReturn:
    raise NotMeasured(
        expected=f"the environment of {metric} ({environment.about.title})",
        got=environment.state,
        remedy=f"ilf-bench scorers install {environment.name} ({environment.about.size})",
    )


def refuse_commands(scorers: Scorers, origin: str) -> None:
    """Raise :class:`UsageError` where a scorers' file that a preset names would start a program."""
    if scorers.commands:
        raise UsageError(
            expected=f"a scorers' file that starts no program in {origin}",
            got=f"commands: {', '.join(scorers.commands)}",
            remedy=f"read it, and name it with --scorers if you trust it; {GUIDE}",
        )
