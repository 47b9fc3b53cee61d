"""What an earlier run of a study has sampled is linked into a new one, where all that its images depend on is the same.

A run's folder is named after its whole list of methods. So another setting chosen by the tuning asks for a new folder; only its
own row is sampled again. What decides an image is what decides whether a run makes it again (harness/execution/identity.py).
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console

from harness.config.spec import load_spec
from harness.errors import ArtifactError
from harness.execution.environment import describe
from harness.execution.experiment import Experiment
from harness.execution.identity import Identity, changes, read_identity
from harness.execution.resuming import choose_folder, recorded
from harness.models.identity import model_digest
from harness.models.loading import load_pipeline
from harness.sampling.pipeline import Pipeline
from harness.storage.layout import Layout
from harness.storage.records import read_json, write_method
from ilf_bench.experiment import execute, prepare
from studies.study import Study

NUMBER = re.compile(r"(\d{6,})\.(?:png|json)$")  # how the name of an image or of a receipt ends


def identities(experiment: Experiment, pipeline: Pipeline) -> dict[str, Identity]:
    """What decides the images of each method on this pipeline."""
    model, plan = model_digest(pipeline), pipeline.plan()
    return {
        label: {**experiment.planned[label].identity, **read_identity(method, plan, (), model)}
        for label, method in experiment.methods.items()
    }


def linked_run(experiment: Experiment, pipeline: Pipeline, out: Path) -> tuple[Path, list[str]]:
    """The folder of an experiment's run in ``out``, and the labels whose images it has, its own or linked from earlier runs."""
    folder, _ = choose_folder(experiment, out, again=False)
    machine = describe(pipeline.device, pipeline.arithmetic)["machine_key"]
    return folder, take_over(out, folder, experiment, identities(experiment, pipeline), machine)


def run_study(preset: str, overrides: Mapping[str, Any], out: Path, console: Console) -> Study:
    """A preset with some fields changed, run in ``out`` as far as its images are not there already."""
    prepared = prepare(preset, dict(overrides), ())
    run, _ = linked_run(prepared.experiment, load_pipeline(load_spec(preset)), out)
    return Study(execute(prepared, run.parent, console).run)


def take_over(out: Path, run: Path, experiment: Experiment, wanted: Mapping[str, Identity], machine: str) -> list[str]:
    """Link what other runs in ``out`` hold of these images into ``run``; returns the labels that were found somewhere.

    Every image is still checked against its digest, and measured again where it is not the one that was measured.
    """
    here = recorded(run)
    found = [label for label in here if label in wanted and not changes(here[label].identity, wanted[label])]
    for other in sorted(path.parent for path in out.glob(f"*/{Layout(out).spec.name}") if path.parent != run):
        if _machine(other) != machine:
            continue
        for label, record in recorded(other).items():
            missing = label in wanted and label not in found and label not in here
            if missing and record.block_evaluations is not None and not changes(record.identity, wanted[label]):
                _link(other, run, label, experiment.spec.samples)
                write_method(run, record)
                found.append(label)
    return found


def _machine(run: Path) -> str:
    try:
        return str(read_json(Layout(run).environment)["machine_key"])
    except (ArtifactError, KeyError, TypeError):
        return ""


def _link(source: Path, target: Path, label: str, samples: int) -> None:
    """The images and receipts of the first ``samples``, and all measurements."""
    for kind in (Layout(source).samples(label).path, Layout(source).measurement(label, "any").record.parent):
        for file in (path for path in kind.rglob("*") if path.is_file()):
            number = NUMBER.search(file.name)
            if number is None or int(number[1]) < samples:
                new = target / file.relative_to(source)
                new.parent.mkdir(parents=True, exist_ok=True)
                os.link(file, new)
