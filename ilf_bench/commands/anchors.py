"""``ilf-bench anchors``: what a right set-up of a preset should reproduce, and whether a run did."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from harness.text import one_line
from ilf_bench.console import console, print_line, print_whole
from ilf_bench.options import DEFAULT_OUT, Out

if TYPE_CHECKING:
    from harness.config.spec import ExperimentSpec
    from harness.storage.records import Run


def anchors(
    what: Annotated[str, typer.Argument(help="A preset, a model of a published table, or a run folder.")],
    out: Out = DEFAULT_OUT,
) -> None:
    """Show what a correct set-up reproduces, within which tolerance and at which N, and whether the newest run did."""
    from harness.storage.layout import Layout
    from harness.storage.records import read_run

    if Layout(Path(what)).spec.exists():
        _print_run(read_run(Path(what)))
        return
    from harness.config.spec import load_spec, preset_names

    if what not in preset_names() and not Path(what).exists() and _print_tables(what):
        print_line(f"no preset is named {what}: these are tables only")
        return
    spec = load_spec(what)
    run = _newest(spec.name, out)
    if run is not None:
        _print_run(run)
        return
    _print_preset(spec)
    print_line(f"no run of {spec.name} in {out} yet: ilf-bench run {what}")


def _newest(name: str, out: Path) -> Run | None:
    """The newest run of a preset that is still on disk."""
    from harness.history.store import History
    from harness.storage.locations import history_path
    from harness.storage.records import read_run
    from ilf_bench.lookup import folder_on_disk, recorded

    store = history_path(out)
    entries = recorded(History(store)) if store.exists() else ()
    paths = [folder for entry in entries if entry.preset == name and (folder := folder_on_disk(entry, out))]
    return read_run(paths[-1]) if paths else None


def _print_preset(spec: ExperimentSpec) -> None:
    from reports.render.published import accepted, published, source

    rows = [(one.title, published(one), accepted(one), source(one.source, one)) for one in spec.anchors]
    _print_table(f"{spec.name}: what the full run should reproduce", ("What", "Published", "Accepted", "Source"), rows)
    _print_tables(spec.name)


def _print_tables(model: str) -> bool:
    """What others published of a model; False where nothing is known."""
    from reports.analysis.published import published_of
    from reports.render.published import sheets

    known = sheets(published_of(model))
    for sheet in known:
        _print_table(sheet.title, sheet.head, sheet.rows)
    return bool(known)


def _print_run(run: Run) -> None:
    from reports.render.published import ANCHOR_HEAD, BESIDE_HEAD, apart

    found = apart(run)
    _print_table(f"{run.path.name}: what its full run should reproduce", ANCHOR_HEAD, found.anchors)
    _print_table(f"{run.path.name}: differences to each table's own baseline, not ranked", BESIDE_HEAD, found.differences)


def _print_table(title: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    if not rows:
        print_line(f"{title}: nothing is known")
        return
    table = Table(*head, title=escape(title))
    for row in rows:
        table.add_row(*(escape(one_line(cell, most=len(cell) + 1)) for cell in row))
    print_whole(console, table)
