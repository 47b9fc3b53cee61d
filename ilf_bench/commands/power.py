"""``ilf-bench power``: what a run can find, and how many images it needs, before it is run."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from harness.errors import UsageError
from ilf_bench.console import console, print_whole
from ilf_bench.options import DEFAULT_OUT, Out

if TYPE_CHECKING:
    from harness.config.spec import ExperimentSpec
    from harness.storage.records import Run

ASSUMED = "assumed"


def power(
    what: Annotated[str, typer.Argument(help="A preset that you mean to run, or a run folder.")],
    pilot: Annotated[
        str | None, typer.Option(help="Run from which the variances are taken; default: the newest of that preset.")
    ] = None,
    samples: Annotated[int | None, typer.Option(help="Images per method; default: the preset's.")] = None,
    rounds: Annotated[int | None, typer.Option(help="Timing rounds; default: the preset's.")] = None,
    effect: Annotated[str | None, typer.Option(help="Differences to detect, as clip_score=0.5,speed=0.02.")] = None,
    assume: Annotated[
        str | None, typer.Option(help="Standard deviations of a difference, where no pilot run gives them.")
    ] = None,
    out: Out = DEFAULT_OUT,
) -> None:
    """Estimate how small a difference a run can detect and how many images that takes; nothing is run."""
    print_whole(console, needed(what, pilot, samples, rounds, amounts(effect), amounts(assume), out))


def needed(
    what: str,
    pilot: str | None,
    samples: int | None,
    rounds: int | None,
    effects: Mapping[str, float],
    assumed: Mapping[str, float],
    out: Path,
) -> Table:
    """The table for a run folder (itself the pilot) or a preset (with a pilot, the newest recorded run of it, or assumptions)."""
    from harness.config.spec import load_spec
    from harness.statistics.power import Design
    from harness.storage.layout import Layout
    from harness.storage.records import read_run
    from reports.analysis.power import SPEED, SPEED_EFFECT, deviations, margins, power_table, requirements

    own = Layout(Path(what)).spec
    run = read_run(Path(what)) if own.exists() else _pilot(load_spec(what), pilot, out, needed=not assumed)
    spec = run.spec if run is not None and own.exists() else load_spec(what).model_dump(mode="json")
    found = deviations(run) if run else {}
    wanted = {SPEED: SPEED_EFFECT, **(margins(run) if run else {}), **effects}
    known = found | {name: (value, ASSUMED) for name, value in assumed.items()}
    if not known:
        raise UsageError(
            expected="a pilot with timed rounds, or a score of each image that two methods can be compared by",
            got="neither",
            remedy="name another with --pilot RUN, or state deviations: --assume clip_score=4.2,speed=0.02",
        )
    if unknown := set(effects) - set(known):
        raise UsageError(
            expected=f"effects on {', '.join(known)}", got=", ".join(sorted(unknown)), remedy="see the pilot's metrics"
        )
    design = Design(tests=max(1, (len(spec["methods"]) - 1) * len(spec["metrics"])))
    rows = requirements(known, wanted, samples or spec["samples"], rounds or spec["timing"]["rounds"], design, run)
    silent = [name for name in (SPEED, *spec["metrics"]) if name not in known]
    return power_table(f"{spec['name']}: pilot {run.path.name if run else 'none, assumed deviations'}", rows, design, silent)


def _pilot(spec: ExperimentSpec, named: str | None, out: Path, *, needed: bool) -> Run | None:
    from harness.history.store import History
    from harness.storage.locations import history_path
    from harness.storage.records import read_run
    from ilf_bench.lookup import folder_on_disk, recorded

    if named is not None:
        run = read_run(Path(named))
        if run.spec["pipeline"] != spec.pipeline:
            raise UsageError(
                expected=f"a pilot on {spec.pipeline}", got=run.spec["pipeline"], remedy="name a run of the same model"
            )
        return run
    store = history_path(out)
    entries = recorded(History(store)) if store.exists() else ()
    paths = [folder for entry in entries if entry.preset == spec.name and (folder := folder_on_disk(entry, out))]
    if paths:
        return read_run(paths[-1])
    if needed:
        raise UsageError(
            expected=f"an earlier run of {spec.name} in {out}",
            got="none",
            remedy="name one with --pilot RUN, or state deviations: --assume clip_score=4.2,speed=0.02",
        )
    return None


def amounts(text: str | None) -> dict[str, float]:
    """``name=number,name=number`` as a mapping; above 0 only. A share of time (``speed=0.05``) becomes a log ratio."""
    from reports.analysis.power import SPEED

    found: dict[str, float] = {}
    for part in filter(None, (text or "").split(",")):
        name, _, value = part.partition("=")
        try:
            found[name.strip()] = float(value)
        except ValueError:
            found[name.strip()] = -1.0
        if not 0 < found[name.strip()] < float("inf"):
            raise UsageError(expected="NAME=NUMBER above 0, comma-separated", got=repr(part), remedy="for example clip_score=0.5")
    return {name: math.log1p(value) if name == SPEED else value for name, value in found.items()}
