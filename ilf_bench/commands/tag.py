"""``ilf-bench tag``: a name for a run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ilf_bench.console import print_line
from ilf_bench.options import DEFAULT_OUT, Out


def tag(
    name: Annotated[str, typer.Argument(help="For example baseline; an existing tag is moved.")],
    run: Annotated[str, typer.Argument(help="A run folder, run id, commit or tag.")],
    out: Out = DEFAULT_OUT,
) -> None:
    """Name a run, for gate and compare."""
    from harness.storage.layout import Layout
    from harness.storage.records import read_run
    from ilf_bench.lookup import open_history

    history, folder = open_history(out), Path(run)
    identity = history.append(read_run(folder)) if Layout(folder).spec.exists() else history.find(run).run_id
    history.tag(name, identity)
    print_line(f"{name}: run {identity}")
