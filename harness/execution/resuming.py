"""Which folder a run goes into, and what of an earlier call is kept: whatever has been made of what is asked for now.

A finished run stays as it is where our code, the libraries, the model, the prompts or the machine are others by now, or where it
is asked for once more: then a run is made beside it. Where single methods have changed (a plugin, a file that they read), these
are made again in place, and of an unfinished run whatever has changed.
"""

from __future__ import annotations

import shutil
from collections.abc import Collection, Mapping
from contextlib import suppress
from pathlib import Path

from harness.errors import ArtifactError
from harness.execution.experiment import Experiment
from harness.execution.identity import SHARED, Identity, changes, describe_changes
from harness.results import BASELINE, MethodRecord
from harness.storage.layout import Layout
from harness.storage.locations import is_local
from harness.storage.records import read_method


class AnotherRun(Exception):
    """A finished run is not this one: what is asked for now goes into ``folder``."""

    def __init__(self, folder: Path, why: str) -> None:
        super().__init__(why)
        self.folder, self.why = folder, why


def choose_folder(experiment: Experiment, out: Path, *, again: bool) -> tuple[Path, str]:
    """The folder for a run, by what is known before a model is loaded, and a sentence where it is beside a finished one.

    Raises :class:`ArtifactError` where the newest run of this spec has another format.
    """
    number = experiment.number(out)
    folder = experiment.folder(out, number)
    if not Layout(folder).complete.exists():
        return folder, ""
    why = "" if again else shared_change(folder, {k: r.identity for k, r in experiment.planned.items()})
    if not why and not again:
        return folder, ""
    beside = experiment.folder(out, number + 1)
    return beside, stays(folder, why, beside)


def stays(finished: Path, why: str, beside: Path) -> str:
    """That a finished run is left as it is; ``why``: what has changed since, if anything."""
    return f"{finished.name} is finished{f', and {why} has changed since' if why else ''}: measured once more in {beside.name}"


def shared_change(folder: Path, identities: Mapping[str, Identity]) -> str:
    """What has changed since a finished run that concerns more than one method's own files; empty where nothing has."""
    for label, before in recorded(folder).items():
        now = identities.get(label, {})
        known = [word for word in SHARED if word in now and word in before.identity]
        if differing := [word for word in changes(before.identity, now) if word in known]:
            return describe_changes({w: before.identity[w] for w in differing}, {w: now[w] for w in differing})
    return ""


def recorded(folder: Path) -> dict[str, MethodRecord]:
    """The methods' records in a folder by label, as far as they can be read."""
    found = {}
    for file in Layout(folder).methods():
        with suppress(ArtifactError):
            record = read_method(file)
            found[record.label] = record
    return found


def changed_methods(folder: Path, planned: Mapping[str, MethodRecord]) -> dict[str, str]:
    """What of the methods in ``folder`` is other than ``planned``, by label.

    A method without a readable record counts, too, since nobody knows what its images were made of.
    """
    layout, before = Layout(folder), recorded(folder)
    slugs = {path.name for kind in (layout.all_samples,) for path in kind.glob("*")} if layout.all_samples.exists() else set()
    found: dict[str, str] = {}
    for label in dict.fromkeys([*before, *planned]):
        if label not in planned:
            found[label] = "its label"
        elif label not in before:
            found |= {label: "its record was lost"} if layout.samples(label).path.name in slugs else {}
        elif why := describe_changes(before[label].identity, planned[label].identity):
            found[label] = why
    return found


def forget(folder: Path, labels: Collection[str]) -> None:
    """Delete what was made of these methods, and every time, since all are timed side by side.

    The records go last: whoever is interrupted here finds them again.
    """
    layout = Layout(folder)
    for label in labels:
        for path in layout.of_method(label):
            remove(path)
    if labels:
        for path in [*layout.rounds(), layout.warmup, *([layout.controls] if BASELINE in labels else [])]:
            remove(path)
        for label in labels:
            remove(layout.method(label))


def remove(path: Path) -> None:
    """Delete a file, or a folder with all in it, if it is there."""
    if is_local(path) and path.is_dir():
        shutil.rmtree(path)
        return
    for file in [file for file in path.rglob("*") if file.is_file()] if path.is_dir() else []:
        file.unlink()
    if not path.is_dir():
        path.unlink(missing_ok=True)
