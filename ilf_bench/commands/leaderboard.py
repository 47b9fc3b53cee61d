"""``ilf-bench leaderboard``: a static site from the bundles of many machines and models."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ilf_bench.console import print_line
from ilf_bench.options import EXIT_PARTIAL, WRITTEN

if TYPE_CHECKING:
    from reports.analysis.leaderboard import Entry, Source


def leaderboard(
    bundles: Annotated[list[Path], typer.Argument(help="Archives made by ilf-bench bundle.")],
    html: Annotated[Path, typer.Option(**WRITTEN, help="The folder of the site: index.html and the bundles.")],
) -> None:
    """Rank the methods of many bundles, those together that can be compared: exit 4 if a bundle was refused."""
    from harness.errors import ArtifactError
    from harness.storage.files import write_bytes
    from harness.text import one_line
    from reports.analysis.leaderboard import boards
    from reports.render.leaderboard import leaderboard_page

    found: list[Entry] = []
    sources: dict[str, Source] = {}
    refused: list[str] = []
    for bundle in bundles:
        try:
            rows, source = _read(bundle)
        except ArtifactError as error:
            refused.append(one_line(f"{bundle.name}: {error}".replace(str(bundle), bundle.name)))
            print_line(f"refused: {refused[-1]}")
            continue
        if source.run_id in sources:
            print_line(f"passed over: {bundle.name} has the run of {sources[source.run_id].digest}")
            continue
        sources[source.run_id] = source
        found += rows
        (html / source.file).parent.mkdir(parents=True, exist_ok=True)
        _copy(bundle, html / source.file)
    if not sources:
        raise ArtifactError(expected="a bundle that can be read", got="none", remedy="ilf-bench bundle RUN writes one")
    page = html / "index.html"
    write_bytes(page, leaderboard_page(boards(found), tuple(sources.values()), refused).encode())
    print_line(f"leaderboard: {page}, {len(sources)} bundle{'s' * (len(sources) != 1)}")
    raise typer.Exit(EXIT_PARTIAL if refused else 0)


def _read(bundle: Path) -> tuple[list[Entry], Source]:
    """The rows of a bundle that agrees with itself. Raises :class:`ArtifactError` on any other."""
    from harness.history.bundle import opened_bundle
    from harness.history.packing import run_id
    from reports.analysis.leaderboard import entries, source_of

    with opened_bundle(bundle) as (verified, run):
        source = source_of(run, verified.digest, f"bundles/{verified.digest}.zip", run_id(run))
        return entries(run, source), source


def _copy(bundle: Path, target: Path) -> None:
    from harness.storage.files import replacing

    with bundle.open("rb") as content, replacing(target) as file:
        shutil.copyfileobj(content, file)
