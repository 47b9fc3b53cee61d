"""A campaign of hostile files: nothing outside is read or written, nobody is contacted, no program starts, within 1 GiB and 10 s.

Each file is handled in a process of its own, forked from this one. Python reports every file that it opens there, and every
connection and program, to an audit hook. ``CAMPAIGN=7 pytest ...`` handles one file alone.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import pytest

from harness.config.prompts import load_prompts
from harness.errors import HarnessError
from harness.models.loading import load_pipeline, quiet_libraries
from harness.storage.images import decode_image
from ilf_bench.cli import main
from ilf_bench.experiment import prepare
from metrics.moments import holds_statistics, read_statistics
from metrics.reference import load_reference
from tests.security.crafted import MEMORY_MIB, SECONDS, peak_mib
from tests.security.hostile import SECRET, Bases, Case, make
from tests.security.test_arrays import Extractor
from tests.security.test_models import spec

SHORT, LONG = 60, 1000
LISTED = {0, 1, 2, 3, 4, 64, 65}
FORBIDDEN = (
    "socket.connect",
    "socket.getaddrinfo",
    "socket.sendto",
    "subprocess.Popen",
    "os.system",
    "os.exec",
    "os.posix_spawn",
    "os.fork",
)
WITH_HISTORY = ("history", "export", "import", "gate", "verify")


def other_work(words: tuple[str, ...]) -> None:
    """What a run does with a file before anything is sampled."""
    name, path = words
    if name == "prepare":
        prepare(path, {}, [])
    elif name == "prompts":
        load_prompts(path)
    elif name == "load":
        load_pipeline(spec(Path(path)))
    elif name == "decode":
        for file in sorted(Path(path).rglob("*.png")):
            decode_image(file)
    else:
        (read_statistics if holds_statistics(Path(path)) else lambda file: load_reference(file, Extractor()))(Path(path))


def handle(words: tuple[str, ...]) -> int:
    """The exit code of a command; other work ends as the command line ends it."""
    if words[0] in ("prepare", "prompts", "load", "decode", "reference"):
        try:
            other_work(words)
            return 0
        except HarnessError as error:
            sys.stderr.write(f"error: {error}\n")
            return error.exit_code
    return main([*words, *(["--out", "."] if words[0] in WITH_HISTORY else [])])


def child(case: Case, folder: Path, outside: Path) -> NoReturn:
    """Do everything that the case asks for, and note how it went."""
    os.chdir(folder)
    found: dict[str, Any] = {"codes": [], "seconds": [], "broken": []}
    for stream, name in ((1, "out.txt"), (2, "err.txt")):
        os.dup2(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_APPEND), stream)
    sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")
    import ilf_bench.console as printing
    from harness.terminal import make_console

    printing.console.file, printing.errors = sys.stdout, make_console(file=sys.stderr, soft_wrap=True)

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        if event in FORBIDDEN:
            found["broken"].append(f"{event} {arguments!r}"[:200])
        if event == "open" and isinstance(arguments[0], str) and os.path.realpath(arguments[0]).startswith(str(outside)):
            found["broken"].append(f"opened {arguments[0]}")

    Path("/proc/self/clear_refs").write_text("5")
    before = peak_mib()
    sys.addaudithook(watch)
    for words in case.commands:
        started = time.monotonic()
        try:
            found["codes"].append(handle(words))
        except BaseException:
            found["codes"].append(-1)
            found["broken"].append(traceback.format_exc()[-700:])
        found["seconds"].append(time.monotonic() - started)
    sys.stdout.flush()
    sys.stderr.flush()
    found["mib"] = peak_mib() - before
    Path("found.json").write_text(json.dumps(found))
    os._exit(0)


def in_child(case: Case, folder: Path, outside: Path) -> dict[str, Any]:
    process = os.fork()
    if process == 0:
        child(case, folder, outside)
    deadline = time.monotonic() + 6 * SECONDS
    while os.waitpid(process, os.WNOHANG) == (0, 0):
        if time.monotonic() > deadline:
            os.kill(process, signal.SIGKILL)
            os.waitpid(process, 0)
            return {"codes": [], "seconds": [6 * SECONDS], "mib": 0, "broken": ["it did not end"]}
        time.sleep(0.005)
    file = folder / "found.json"
    return (
        json.loads(file.read_text()) if file.exists() else {"codes": [], "seconds": [], "mib": 0, "broken": ["the process died"]}
    )


def judge(case: Case, found: dict[str, Any], folder: Path) -> list[str]:
    """What is wrong with how a file was handled."""
    said = (folder / "err.txt").read_text(errors="replace") if (folder / "err.txt").exists() else ""
    errors = [line for line in said.splitlines() if line.strip() and not line.startswith("passed over:")]
    wrong = list(found["broken"])
    wrong += [f"exit {code}" for code in found["codes"] if code not in LISTED]
    wrong += ["more than one message a command"] if len(errors) > len(case.commands) else []
    wrong += ["a traceback"] if "Traceback" in said else []
    wrong += [f"{seconds:.1f} s" for seconds in found["seconds"] if seconds > SECONDS]
    wrong += [f"{found['mib']:.0f} MiB"] if found["mib"] > MEMORY_MIB else []
    written = [path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]
    wrong += [f"the secret is in {path.name}" for path in written if SECRET.encode() in path.read_bytes()]
    return [*wrong, *errors] if wrong else []


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory, folders: dict[str, Path]) -> Bases:
    quiet_libraries()
    return Bases.build(tmp_path_factory.mktemp("bases"), folders["pixart"])


@pytest.fixture
def outside(tmp_path: Path) -> Iterator[Path]:
    """A folder that no hostile file may reach."""
    folder = tmp_path / "outside"
    folder.mkdir()
    (folder / "secret.json").write_text(json.dumps({"secret": SECRET}))
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    yield folder
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before, "something outside was written"


def campaign(numbers: range | list[int], bases: Bases, outside: Path) -> None:
    failed: list[str] = []
    for number in numbers:
        folder = outside.parent / f"case-{number}"
        folder.mkdir()
        case = make(number, folder, bases)
        if wrong := judge(case, in_child(case, folder, outside), folder):
            failed.append(f"{number} {case.kind}: " + " | ".join(wrong)[:900])
    assert not failed, f"{len(failed)} of {len(numbers)}:\n" + "\n".join(failed)


def test_hostile_files(bases: Bases, outside: Path) -> None:
    campaign([int(os.environ["CAMPAIGN"])] if "CAMPAIGN" in os.environ else range(SHORT), bases, outside)


@pytest.mark.slow
def test_a_thousand_hostile_files(bases: Bases, outside: Path) -> None:
    campaign(range(SHORT, LONG), bases, outside)


@pytest.mark.parametrize("work", ["import socket; socket.create_connection(('127.0.0.1', 9))", "import os; os.system('true')"])
def test_the_campaign_sees_what_it_must_see(work: str, bases: Bases, outside: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A command that contacts somebody or starts a program is found."""

    def careless(words: tuple[str, ...]) -> int:
        exec(work)
        return 0

    monkeypatch.setattr("tests.security.test_campaign.handle", careless)
    folder = outside.parent / "case"
    folder.mkdir()
    case = Case("careless", (("x",),))
    assert judge(case, in_child(case, folder, outside), folder)
