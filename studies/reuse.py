"""What an earlier run of a benchmark has sampled is linked into a new one, where all that the images depend on is the same.

A run's folder is named after its whole list of methods, and its pipeline folder may hold one set of weights only. So a module
trained again, or another setting chosen by the tuning, asks for a new folder; only its own rows are sampled again. The code of
the methods is not looked at: after a change of it name another ``--out``.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path

from harness.execution.environment import describe
from harness.execution.experiment import Experiment
from harness.results import MethodRecord
from harness.sampling.pipeline import Pipeline
from harness.storage.layout import slug
from harness.storage.records import read_json, write_json

KEYS = "image-keys.json"
SAMPLED = ("samples", "measurements")
SETTINGS = ("pipeline", "task", "solver", "steps", "guidance", "batch", "seed", "precision", "device")
NOTES = (".md", ".png")  # a model's card and its samples
RECORDS = "training"  # how a file begins that says how long a training took


def read_by(folder: Path, method: MethodRecord) -> list[Path]:
    """What a method reads: the pipeline's parts, what lies in its folder under the method's name or that of its checkpoint,
    T-Stitch's smaller sibling."""
    index = json.loads((folder / "model_index.json").read_text(encoding="utf-8"))
    names = [name for name, value in index.items() if isinstance(value, list)]
    for part in method.parts:
        names += [part.name, *([part.options["checkpoint"]] if part.options.get("checkpoint") else [])]
    sibling = [folder.with_name(f"{folder.name}-small")] if "t-stitch" in names else []
    return [path for path in [*(folder / name for name in dict.fromkeys(names)), *sibling] if path.is_dir()]


def content_digest(folders: Iterable[Path]) -> str:
    """16 hexadecimal digits over all files that a model or a method is made of."""
    total = hashlib.sha256()
    for folder in folders:
        for path in sorted(folder.rglob("*")):
            if path.is_file() and path.suffix not in NOTES and not path.name.startswith(RECORDS):
                total.update(f"{path.relative_to(folder.parent)}:".encode() + hashlib.sha256(path.read_bytes()).digest())
    return total.hexdigest()[:16]


def image_keys(experiment: Experiment, folder: Path, machine: str) -> dict[str, str]:
    """For each method's label what identifies its images: weights, settings, prompts, the method's text, and the machine."""
    spec = experiment.spec.identity()
    common = [spec[name] for name in SETTINGS] + [experiment.prompt_record["digest"], machine]
    return {
        label: hashlib.sha256(json.dumps([*common, m.spec, content_digest(read_by(folder, m))]).encode()).hexdigest()[:16]
        for label, m in experiment.planned.items()
    }


def run_root(out: Path, keys: Mapping[str, str]) -> Path:
    """The folder in ``out`` for runs of exactly these images."""
    return out / f"images-{hashlib.sha256(json.dumps(keys, sort_keys=True).encode()).hexdigest()[:16]}"


def linked_run(experiment: Experiment, pipeline: Pipeline, out: Path) -> tuple[Path, dict[str, str], list[str]]:
    """The folder of an experiment's run in ``out``, its keys, and the labels whose images earlier runs had: they are linked."""
    assert pipeline.folder is not None
    keys = image_keys(experiment, pipeline.folder, describe(pipeline.device, pipeline.arithmetic)["machine_key"])
    run = experiment.folder(run_root(out, keys))
    return run, keys, take_over(out, run, keys)


def take_over(out: Path, run: Path, keys: Mapping[str, str]) -> list[str]:
    """Link what other runs in ``out`` hold of these images into ``run``; returns the labels that were found somewhere.

    Every image is still checked against its digest, and measured again where it is not the one that was measured.
    """
    found = [label for label in keys if (run / SAMPLED[0] / slug(label)).exists()]
    for known in sorted(out.glob(f"images-*/*/{KEYS}")):
        theirs = read_json(known)
        for label in [label for label, key in keys.items() if label not in found and theirs.get(label) == key]:
            for part in SAMPLED:
                source = known.parent / part / slug(label)
                if source.is_dir():
                    shutil.copytree(source, run / part / slug(label), copy_function=os.link)
                    found.append(label)
    write_json(run / KEYS, dict(keys))
    return list(dict.fromkeys(found))
