"""``ilf-bench``: registers the commands of ilf_bench/commands, and turns what goes wrong into a message and an exit code."""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib.metadata import version
from typing import Annotated, Any

import typer

from harness.execution.interrupts import interrupted, listen
from harness.terminal import make_console
from harness.text import without_credentials
from ilf_bench.commands.anchors import anchors
from ilf_bench.commands.bundle import bundle
from ilf_bench.commands.check import check
from ilf_bench.commands.compare import compare
from ilf_bench.commands.doctor import doctor
from ilf_bench.commands.export import export
from ilf_bench.commands.gate import gate
from ilf_bench.commands.history import history
from ilf_bench.commands.import_ import import_
from ilf_bench.commands.leaderboard import leaderboard
from ilf_bench.commands.list_ import list_
from ilf_bench.commands.power import power
from ilf_bench.commands.push import push
from ilf_bench.commands.report import report
from ilf_bench.commands.run import run
from ilf_bench.commands.score import score
from ilf_bench.commands.scorers import scorers
from ilf_bench.commands.tag import tag
from ilf_bench.commands.train import train
from ilf_bench.commands.verify import verify
from ilf_bench.console import print_line
from ilf_bench.failures import explain
from ilf_bench.options import flat

COMMANDS: dict[str, Callable[..., None]] = {
    "run": run,
    "report": report,
    "list": list_,
    "doctor": doctor,
    "score": score,
    "anchors": anchors,
    "scorers": scorers,
    "train": train,
    "check": check,
    "history": history,
    "power": power,
    "gate": gate,
    "compare": compare,
    "bundle": bundle,
    "verify": verify,
    "push": push,
    "leaderboard": leaderboard,
    "tag": tag,
    "export": export,
    "import": import_,
}
EXIT_INTERRUPTED = 130
INTERRUPTED = "interrupted; the same command resumes where it stopped"

app = typer.Typer(
    name="ilf-bench",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Is this accelerator really better than taking fewer steps, on my machine, at the quality I need?",
)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"ilf-bench {version('ilf-bench')}")
        raise typer.Exit


Version = Annotated[bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")]


@app.callback()
def _before_every_command(version: Version = False) -> None:
    pass


for _name, _work in COMMANDS.items():
    app.command(_name)(flat(_work))


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; whatever goes wrong is one line on standard error, and an exit code of its own."""
    text = ""
    try:
        result: Any = app(arguments, prog_name="ilf-bench", standalone_mode=False)
        code = result if isinstance(result, int) else 0
    except typer.Exit as error:
        code = int(error.exit_code)
    except (KeyboardInterrupt, typer.Abort):  # some versions of typer turn the first into an exit code of their own
        code = EXIT_INTERRUPTED
    except Exception as error:
        text, code = ("", EXIT_INTERRUPTED) if interrupted() else explain(error)
    if code == EXIT_INTERRUPTED:
        text = INTERRUPTED
    if text:
        print_line(without_credentials(text), make_console(stderr=True, soft_wrap=True))
    return code


def entry() -> None:
    """Listen for signals, run, and leave with the exit code."""
    listen()
    code = main()
    sys.stdout.flush()
    sys.exit(code)
