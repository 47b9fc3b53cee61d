"""A thousand changed inputs, each of which must end in the unchanged numbers or be told: nothing is lost or altered in silence.

    python -m benchmarks.mutate_inputs [--cases 1000] [--seed 0] [--record benchmarks/results/mutate_inputs.json]

Folders of images, prompt lists, pipeline folders, plugins and archives are changed by :mod:`benchmarks.mutations`. A case ends

- ``unchanged``: in the numbers of the unchanged input,
- ``message``: in one error of ours that names the file,
- ``exclusion``: in the unchanged numbers of the rest, with a note that names what was left out,
- ``another input``: in other numbers, and with another digest of that input in the record, so that these stand for themselves: a
  run that was begun with the unchanged one is told that it changed, and made again.

Anything else is an ERROR, and the command leaves by 1. A case is a function of its seed and number.
"""

from __future__ import annotations

import argparse
import importlib
import json
import random
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.mutations import (
    PAIRS,
    Change,
    change_archive,
    change_folder,
    change_list,
    change_pipeline,
    change_plugin,
    make_folder,
    make_list,
    make_pipeline,
    make_plugin,
)
from harness.config.prompts import load_prompts, prompt_note
from harness.config.spec import ExperimentSpec
from harness.errors import HarnessError
from harness.history.bundle import extract_bundle, write_bundle
from harness.models.identity import folder_digest
from harness.models.loading import find_plan, load_pipeline, quiet_libraries
from harness.paths import ROOT
from harness.sampling.captions import caption_notes
from harness.sampling.pipeline import Pipeline
from harness.storage.files import digest, write_bytes
from harness.storage.listing import Listing
from harness.storage.records import read_run
from ilf_bench.pairing import pair_prompts
from ilf_bench.plugins import load_plugin
from ilf_bench.registry import Registry
from ilf_bench.scoring import ScoreRequest, score_folder
from metrics.bundled.networks import BundledNetworks
from metrics.reference import describe_reference, load_reference, write_reference
from tests.reports.conftest import Fake, write_fake

METHOD, LABEL, PROMPTS = "limited-guidance", "guidance(", ("a red bird", "a blue fish")
MESSAGE, UNCHANGED, EXCLUSION, ANOTHER = "message", "unchanged", "exclusion", "another input"


@dataclass(frozen=True)
class Seen:
    """What came of an input: ``numbers`` by name, the digest that a record keeps of the input, and what was said beside."""

    numbers: Mapping[str, Any]
    identity: str = ""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Kind:
    """A kind of input: how to make one in a new folder, how to change it, and what comes of it."""

    name: str
    make: Callable[[Path], None]
    change: Callable[[random.Random, Path], Change]
    look: Callable[[Path], Seen]


def look_at_folder(folder: Path) -> Seen:
    """The scores of every image."""
    request = ScoreRequest(folder / "images", ("clip_score", "clip_iqa"), folder / "captions.json")
    found = score_folder(request)
    failed = [score.failure for score in found.scores if score.failure]
    if failed:
        raise _Said(failed[0])
    rows = {name.rsplit(".", 1)[0]: [] for name in found.files}  # type: dict[str, list[float]]
    for score in found.scores:
        assert score.per_image is not None
        for name, value in zip(found.files, score.per_image, strict=True):
            rows[name.rsplit(".", 1)[0]].append(round(float(value), 4))
    numbers = {Path(name).name: tuple(values) for name, values in rows.items()}
    return Seen(numbers, notes=tuple(note.replace(str(folder), "") for note in found.notes))


class _Said(HarnessError):
    """A score that is missing, with the reason that the table shows."""

    def __init__(self, text: str) -> None:
        super().__init__(expected="a score", got=text, remedy="as it says")


def look_at_list(folder: Path) -> Seen:
    """The prompt of each of six images, which are named after the ids."""
    path = next(folder.glob("list.*"), folder / "list.csv")
    listed = load_prompts(str(path))
    files = tuple(folder / f"{name}.png" for name in PAIRS)
    paired = pair_prompts(Listing(folder, files), listed)
    numbers = dict(zip(PAIRS, paired.texts, strict=True))
    notes = paired.how, prompt_note(listed.record(), len(files))
    return Seen(numbers, listed.digest, tuple(note.replace(str(folder), "") for note in notes))


def _spec(folder: Path) -> ExperimentSpec:
    chosen = {"task": "text", "pipeline": str(folder), "steps": 2, "device": "cpu", "precision": "fp32", "metrics": []}
    return ExperimentSpec(name="x", prompts="x", methods=("full",), **chosen)


def look_at_pipeline(folder: Path) -> Seen:
    """Two images."""
    find_plan(_spec(folder))
    pipeline = load_pipeline(_spec(folder))
    notes = caption_notes(pipeline, PROMPTS)
    return Seen({"images": _image(pipeline)}, folder_digest(folder), tuple(notes))


def _image(pipeline: Pipeline) -> str:
    return digest(pipeline.generate(PROMPTS, 3, range(2)).numpy().tobytes())


@cache
def _bundled() -> Pipeline:
    return load_pipeline(_spec(ROOT / "zoo" / "tiny-pixart").model_copy(update={"steps": 5}))


def look_at_plugin(folder: Path) -> Seen:
    """The method's label, plan and images, each file run anew as by another call."""
    importlib.invalidate_caches()
    for name in [name for name, module in sys.modules.items() if str(getattr(module, "__file__", "")).startswith(str(folder))]:
        del sys.modules[name]
    loaded = load_plugin(folder / "mine.py")
    registry = Registry.of([folder / "mine.py"])
    method = registry.method(METHOD)
    pipeline = _bundled()
    registry.check_plan(METHOD, method, pipeline.plan())
    numbers: dict[str, Any] = {"label": method.label, "branches": [step.branches for step in method.plan(pipeline.plan()).steps]}
    try:
        with method.attach(pipeline):
            numbers["images"] = _image(pipeline)
    except Exception as error:  # a run says it in the method's row
        raise _Said(f"{method.label}: {error!r}") from error
    return Seen(numbers, loaded.digest)


def make_archives(folder: Path) -> None:
    """A bundle, and reference features."""
    shutil.copytree(_archives(), folder)


@cache
def _archives() -> Path:
    folder = Path(tempfile.mkdtemp())
    write_bundle(write_fake(folder / "run", Fake(n=8, rounds=3)).path, folder / "a" / "run.zip", images=True)
    rows = np.random.default_rng(0).normal(size=(60, _features().width)).astype(np.float32)
    write_reference(folder / "a" / "reference.npz", rows, describe_reference(_features(), "noise"))
    return folder / "a"


@cache
def _features() -> Any:
    return BundledNetworks(ROOT / "zoo" / "scorers", "text").frechet_features


def look_at_archive(folder: Path) -> Seen:
    """All records of a run out of its bundle, or the moments of reference features."""
    numbers: dict[str, Any] = {}
    identity = ""
    if (folder / "run.zip").exists() or not (folder / "reference.npz").exists():
        verified = extract_bundle(folder / "run.zip", folder / "back")
        if verified.findings:
            raise _Said("; ".join(f"{one.path} in {folder}/run.zip: {one.state}" for one in verified.findings))
        run = read_run(folder / "back")
        scores = [(key, _values(run.scores[key])) for key in sorted(run.scores)]
        numbers["run.zip"] = digest(repr((scores, run.timings)).encode())
    if (folder / "reference.npz").exists():
        reference = load_reference(folder / "reference.npz", _features())
        numbers["reference.npz"] = digest(np.round(reference.moments.mean, 6).tobytes())
        identity = reference.digest
    return Seen(numbers, identity)


def _values(score: Any) -> list[float]:
    return [] if getattr(score, "influence", None) is None else [float(value) for value in score.influence]


KINDS = (
    Kind("folders", make_folder, change_folder, look_at_folder),
    Kind("prompt lists", make_list, change_list, look_at_list),
    Kind("pipeline folders", make_pipeline, change_pipeline, look_at_pipeline),
    Kind("plugins", make_plugin, change_plugin, look_at_plugin),
    Kind("archives", make_archives, change_archive, look_at_archive),
)


@dataclass(frozen=True)
class Case:
    """How one case ended; an ``ended`` that begins with ERROR is a promise that was broken."""

    number: int
    kind: str
    what: str
    readable: bool
    ended: str


def judge(change: Change, before: Seen, after: Seen | Exception) -> str:
    """How a case ended."""
    if isinstance(after, HarnessError):
        named = any(name in str(after) for name in (*change.names, METHOD, LABEL))
        return MESSAGE if named else f"ERROR: a message that does not name {' or '.join(change.names)}: {after}"
    if isinstance(after, Exception):
        return f"ERROR: {type(after).__name__}: {after}"
    notes = " ".join(after.notes)
    rest = {name: value for name, value in before.numbers.items() if name in after.numbers}
    if after.numbers == rest and rest:
        lost = before.numbers.keys() - after.numbers.keys()
        names = lost or change.names
        said = after.notes != before.notes and any(name in notes for name in names)
        if said and all(name in notes for name in lost):
            return EXCLUSION
        if not lost:
            return UNCHANGED
    if after.identity and after.identity != before.identity:
        return ANOTHER
    return f"ERROR: other numbers in silence: {str(dict(after.numbers))[:200]}"


def run_case(number: int, seed: int, folder: Path) -> Case:
    """Make, look, change, look again."""
    sys.dont_write_bytecode = True  # a file that changes within a second must be read again
    kind, rng = KINDS[number % len(KINDS)], random.Random(f"{seed} {number}")
    place = folder / f"case-{number}" / "input"
    kind.make(place)
    known = kind.look(place) if kind.name == "plugins" else None  # their files have names of their own
    change = kind.change(rng, place)
    before = known or _before(kind, change, folder / "unchanged")
    try:
        after: Seen | Exception = kind.look(place)
    except Exception as error:
        after = error
    shutil.rmtree(folder / f"case-{number}")
    return Case(number, kind.name, change.what, change.readable, judge(change, before, after))


_KNOWN: dict[str, Seen] = {}


def _before(kind: Kind, change: Change, folder: Path) -> Seen:
    """What comes of the unchanged input; of files that hold the same, only the one that was changed counts."""
    key = kind.name + (change.names[0] if kind.name in ("prompt lists", "archives") else "")
    if key not in _KNOWN:
        kind.make(folder / key)
        _keep_single(kind, change, folder / key)
        _KNOWN[key] = kind.look(folder / key)
    return _KNOWN[key]


def _keep_single(kind: Kind, change: Change, folder: Path) -> None:
    if kind.name in ("prompt lists", "archives"):
        for path in [path for path in folder.iterdir() if path.name != change.names[0]]:
            path.unlink()


def main() -> None:
    """All cases, and their counts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=1000)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--record", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    quiet_libraries()
    cases: list[Case] = []
    with tempfile.TemporaryDirectory() as folder:
        for number in range(arguments.first, arguments.first + arguments.cases):
            cases.append(run_case(number, arguments.seed, Path(folder)))
            if cases[-1].ended.startswith("ERROR"):
                print(f"{number} {cases[-1].kind}: {cases[-1].what}: {cases[-1].ended}"[:600], flush=True)
    content = report(cases, arguments.seed)
    print(json.dumps(content, indent=1))
    if arguments.record is not None:
        write_bytes(arguments.record, (json.dumps(content, indent=1) + "\n").encode())
    sys.exit(1 if content["errors"] else 0)


def report(cases: list[Case], seed: int) -> dict[str, Any]:
    """Counts by kind of input and end."""
    ends = Counter((case.kind, case.ended.split(":")[0]) for case in cases)
    table = {kind.name: {end: count for (name, end), count in sorted(ends.items()) if name == kind.name} for kind in KINDS}
    broken = [f"{case.number} {case.what}: {case.ended}" for case in cases if case.ended.startswith("ERROR")]
    readable = sum(case.readable for case in cases)
    return {"seed": seed, "cases": len(cases), "readable_but_wrong": readable, "ended": table, "errors": broken}


if __name__ == "__main__":
    main()
