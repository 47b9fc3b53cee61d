"""Where each thing of a run lies: no other module knows a path inside a run's folder.

RUN/spec.json                              the resolved ExperimentSpec
RUN/environment.json                       machine, packages, commit
RUN/methods/SLUG.json                      a MethodRecord, without counted blocks before it has run; with a reason where it failed
RUN/samples/SLUG/                          000000.png ..., receipts of what was generated together, and manifest.json
RUN/measurements/SLUG/NAME.npy and .json   what a metric measured, one row per image: shared by all metrics of that measurement
RUN/scores/SLUG/METRIC.json and .npy       a Score and its per-image values, or a Failure
RUN/controls/SLUG/METRIC.json and .npy     the same for a null control (harness/statistics/controls.py)
RUN/timing/ROUND.json                      the TimingSamples of one interleaved round, at every batch size
RUN/warmup.json                            the TimingSamples of the rounds before it, with the seconds spent compiling
RUN/faults/NUMBER.json                     a Fault: work that was lost, or done at a smaller batch
RUN/plugins/DIGEST/NAME.py                 the sources of a user's own methods and metrics, as they were run
RUN/run.json                               written last: the run is complete
RUN/parts/                                 measurements under way; gone when a method is scored
RUN/report/                                made from all of these, and can be made again
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

FILES = ("spec.json", "environment.json", "warmup.json", "run.json")
FOLDERS = (
    "methods",
    "samples",
    "measurements",
    "scores",
    "controls",
    "timing",
    "faults",
    "plugins",
)  # FILES and these are the record
Scored = Literal["scores", "controls"]
VALUES, PER_IMAGE = "influence", "per_image"  # the arrays of a score


def slug(label: str) -> str:
    """A file name for a method label: readable, and unique through a short digest.

    >>> slug("ilf(8 steps)")
    'ilf-8-steps-6c3001'
    """
    readable = re.sub(r"[^A-Za-z0-9.]+", "-", label).strip("-").lower()[:60]
    return f"{readable}-{hashlib.sha256(label.encode()).hexdigest()[:6]}"


KNOWN = re.compile(  # every file of a record, by its path inside the run
    r"(spec|environment|warmup|run)\.json|(methods|timing|faults)/[^/]+\.json"
    r"|samples/[^/]+/(manifest\.json|chunk-\d+\.json|\d+\.(png|jpg|jpeg|webp|bmp))"
    r"|(measurements|scores|controls)/[^/]+/[^/]+\.(json|npy)|plugins/[^/]+/.+"
)


@dataclass(frozen=True)
class Pair:
    """An array, and the JSON that makes it count: the array is written first and removed last."""

    record: Path
    array: Path


@dataclass(frozen=True)
class SampleFolder:
    """The images of one method."""

    path: Path

    @property
    def manifest(self) -> Path:
        """Indices, prompts and digests; written when every image is there."""
        return self.path / "manifest.json"

    def image(self, index: int) -> Path:
        """Where sample ``index`` lies."""
        return self.path / f"{index:06d}.png"

    def receipt(self, start: int) -> Path:
        """What the chunk of images from ``start`` on consists of."""
        return self.path / f"chunk-{start:06d}.json"


@dataclass(frozen=True)
class Layout:
    """The paths inside one run's folder. Nothing here looks whether they exist, but what returns a list."""

    run: Path

    @property
    def spec(self) -> Path:
        """The experiment; its presence makes a folder a run."""
        return self.run / "spec.json"

    @property
    def environment(self) -> Path:
        """The machine, its packages, the weights and the prompts."""
        return self.run / "environment.json"

    @property
    def warmup(self) -> Path:
        """The timed rounds that came before those that count."""
        return self.run / "warmup.json"

    @property
    def complete(self) -> Path:
        """Written last: its presence says that nothing is missing."""
        return self.run / "run.json"

    def method(self, label: str) -> Path:
        """A method's record, or why it has none."""
        return self.run / "methods" / f"{slug(label)}.json"

    def methods(self) -> list[Path]:
        """All of them, sorted."""
        return sorted(self.run.glob("methods/*.json"))

    @property
    def all_samples(self) -> Path:
        """The folder of all methods' images."""
        return self.run / "samples"

    def samples(self, label: str) -> SampleFolder:
        """One method's images."""
        return SampleFolder(self.all_samples / slug(label))

    def receipts(self) -> list[Path]:
        """Of every method's images, all there or not, sorted."""
        return sorted(self.all_samples.glob("*/chunk-*.json"))

    def sample_folders(self) -> list[SampleFolder]:
        """Those whose images are all there, sorted."""
        return [SampleFolder(path.parent) for path in sorted(self.all_samples.glob("*/manifest.json"))]

    def measurement(self, label: str, name: str) -> Pair:
        """What a metric measured of one method's images."""
        return _pair(self.run / "measurements" / slug(label), name)

    def score(self, label: str, metric: str, kind: Scored = "scores") -> Pair:
        """One metric of one method; with ``kind`` controls, of the null control ``label``."""
        return _pair(self.run / kind / slug(label), metric)

    def scores(self, kind: Scored = "scores") -> list[Path]:
        """The records of all scores, sorted."""
        return sorted(self.run.glob(f"{kind}/*/*.json"))

    def round(self, number: int) -> Path:
        """The timed calls of one interleaved round."""
        return self.run / "timing" / f"{number:03d}.json"

    def rounds(self) -> list[Path]:
        """All of them, sorted."""
        return sorted(self.run.glob("timing/*.json"))

    def fault(self, number: int) -> Path:
        """Something that did not go as planned but was done in the end."""
        return self.run / "faults" / f"{number:04d}.json"

    def faults(self) -> list[Path]:
        """All of them, sorted."""
        return sorted(self.run.glob("faults/*.json"))

    def of_method(self, label: str) -> list[Path]:
        """The folders of everything that was made with a method, but not its record."""
        names = ("samples", "measurements", "scores", "parts")
        return [self.run / name / slug(label) for name in names]

    @property
    def controls(self) -> Path:
        """The folder of all null controls."""
        return self.run / "controls"

    def plugin(self, digest: str, name: str) -> Path:
        """A source file of a user's own method or metric; ``digest`` is that of all files of the plugin."""
        return self.run / "plugins" / digest[:16] / name

    def plugins(self) -> list[Path]:
        """The folders of all plugins, sorted."""
        return sorted(path for path in (self.run / "plugins").glob("*") if path.is_dir())

    def partial(self, label: str, start: int) -> Pair:
        """Measurements under way, of the images of one method from ``start`` on."""
        return _pair(self.run / "parts" / slug(label), f"{start:06d}", ".npz")

    @property
    def report(self) -> Path:
        """The folder of the report."""
        return self.run / "report"


def is_manifest(name: str) -> bool:
    """Whether a file of a run, by its path inside it, is the manifest of a method's images."""
    return Path(name).name == SampleFolder(Path()).manifest.name


def is_source(name: str) -> bool:
    """Whether a file of a run is the text of a plugin."""
    return Path(name).parts[0] == "plugins"


def is_record(name: str) -> bool:
    """Whether a file of a run stands for itself; arrays, images and receipts belong to the record that has their digests."""
    path = Path(name)
    if is_source(name):
        return True
    return path.suffix == ".json" and (path.parts[0] != Layout(Path()).all_samples.name or is_manifest(name))


def members(names: Collection[str]) -> set[str]:
    """Those of a folder's files that belong to a run's record; an array belongs to it with the JSON that it lies beside."""
    beside = re.compile(rf"(\.{PER_IMAGE})?\.npy$")
    return {name for name in names if KNOWN.fullmatch(name) and (name[-4:] != ".npy" or beside.sub(".json", name) in names)}


def is_score(name: str) -> bool:
    """Whether a file of a run belongs to a score, or to that of a null control."""
    return Path(name).parts[0] in get_args(Scored)


def is_control(name: str) -> bool:
    """Whether a file of a run belongs to the score of a null control."""
    return Path(name).parts[0] == "controls"


def array_beside(record: Path, key: str) -> Path:
    """The array ``key`` of a score: ``METRIC.npy`` for what its value is the mean of, ``METRIC.per_image.npy`` beside it."""
    return record.with_suffix(".npy" if key == VALUES else f".{key}.npy")


def _pair(folder: Path, name: str, array: str = ".npy") -> Pair:
    return Pair(folder / f"{name}.json", folder / f"{name}{array}")
