"""``ilf-bench scorers``: metrics whose packages need an environment of their own."""

from __future__ import annotations

import sys
from typing import Annotated, Literal

import typer
from rich.markup import escape
from rich.table import Table

from ilf_bench.console import console, print_line, print_whole


def scorers(
    action: Annotated[Literal["list", "install", "try"], typer.Argument(help="What to do.")] = "list",
    name: Annotated[str | None, typer.Argument(help="The environment's name as listed; for `try`, a metric.")] = None,
    python: Annotated[str, typer.Option(help="The Python interpreter that creates the environment.")] = sys.executable,
    file: Annotated[str | None, typer.Option("--scorers", help="A scorers' file with commands of your own.")] = None,
    prompt: Annotated[str, typer.Option(help="With `try`: what the images are scored for.")] = "a photo of a cat",
) -> None:
    """List, install or try metrics that run as programs in environments of their own; docs/scorer-commands.md."""
    from harness.errors import UsageError

    if action == "list":
        _list()
        return
    if name is None:
        raise UsageError(expected=f"a name after {action}", got="none", remedy="ilf-bench scorers list")
    if action == "install":
        _install(name, python)
    else:
        _try(name, file, prompt)


def _list() -> None:
    from ilf_bench.scorer_commands import environments, user_file

    table = Table("environment", "metrics", "state", "description", "disk", "checked")
    for environment in environments().values():
        about = environment.about
        row = (environment.name, ", ".join(about.metrics), environment.state, about.title, about.size, about.seen)
        table.add_row(*map(escape, row))
    print_whole(console, table)
    state = "read for every run" if user_file().is_file() else "none"
    print_line(f"your own commands for every run: {user_file()} ({state}); for one run: --scorers FILE")


def _install(name: str, python: str) -> None:
    from ilf_bench.scorer_commands import find_environment, install

    environment = find_environment(name)
    print_line(f"installing {environment.about.title}: {environment.about.size} under {environment.folder}")
    install(environment, python)
    names = tuple(environment.about.metrics)
    print_line(f"installed. Metrics: {', '.join(names)}; next: ilf-bench scorers try {names[0]}")


def _try(name: str, file: str | None, prompt: str) -> None:
    """Start the command, and have it score a picture, noise and black."""
    from pathlib import Path

    from harness.errors import UsageError
    from ilf_bench.scorer_commands import command_metrics
    from ilf_bench.trial import trial_rows
    from metrics.command.metric import CommandFactory

    table = command_metrics(None if file is None else Path(file))
    factory = table.get(name)
    if factory is None:
        raise UsageError(expected=f"a command out of {', '.join(table)}", got=repr(name), remedy="ilf-bench scorers list")
    if not isinstance(factory, CommandFactory):
        factory(None)  # type: ignore[arg-type]  # says what is missing
        return
    shown = Table("", "value", title=escape(name))
    for what, value in trial_rows(factory, prompt):
        shown.add_row(what, value)
    print_whole(console, shown)
