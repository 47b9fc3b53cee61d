"""What a method measures once, on seeds and prompts that nothing is evaluated on, and keeps in a file beside its cost."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from harness.cost.plan import Plan
from harness.errors import NotMeasured
from harness.execution.code import code_digest, packages_text
from harness.execution.environment import device_name
from harness.models.identity import folder_digest
from harness.paths import cache_folder, locate
from harness.results import UpfrontCost
from harness.sampling.patching import patched
from harness.storage.layout import slug
from harness.storage.records import read_json, write_json
from harness.timing.stages import StageTimer

if TYPE_CHECKING:
    from harness.sampling.pipeline import Pipeline

SEED = 700  # below 1000: for tuning only
SAMPLES, CHUNK = 16, 4
Curves = Mapping[str, Sequence[float]]
_SPENT: dict[tuple[object, Path | None], float] = {}
_USED: dict[str, str] = {}  # by key: the device that this process calibrated on last


@dataclass(frozen=True)
class Calibration:
    """Named curves, most often one value per step, and the device-seconds that they cost."""

    curves: Curves
    seconds: float
    device: str


def find(method: object, plan: Plan, what: str) -> Calibration | None:
    """The method's calibration of ``what`` for these weights, steps, guidance, solver and timesteps, where it has been made.

    Of those of several devices, the one that this process has used last, else the newest. One that other code has made, the
    method's own or that which samples, is not found.
    """
    made = _made(method, plan, what)
    return Calibration(**read_json(made)) if made else None


def stored(method: object, plan: Plan, what: str) -> list[Path]:
    """The file of the calibration that :func:`find` finds, where it has been made."""
    made = _made(method, plan, what) if plan.backbone.folder is not None else None
    return [made] if made else []


def calibrations_folder() -> Path:
    """Where all of them lie."""
    return cache_folder() / "calibrations"


def _made(method: object, plan: Plan, what: str) -> Path | None:
    key = _key(method, plan, what)
    used = _path(what, key, _USED.get(key, ""))
    made = [used] if used.exists() else sorted(used.parent.glob(f"{what}-{key}-*.json"), key=lambda path: path.stat().st_mtime)
    return made[-1] if made else None


def calibrate(method: object, pipeline: Pipeline, what: str, watch: Callable[[Callable[[], None]], Curves]) -> Calibration:
    """The stored calibration, or a new one: ``watch`` hooks the pipeline, calls its argument to sample, returns the curves.

    Deterministic; its block evaluations are not counted as the method's. ``method`` is charged with the cost, see
    :func:`spent`. Attach a calibrated method before others that touch the blocks: it calibrates on what it finds.
    """
    plan, device = pipeline.plan(), device_name(pipeline.device)
    key = _key(method, plan, what)
    path, _USED[key] = _path(what, key, device), device
    found = Calibration(**read_json(path)) if path.exists() else None
    if found is None:
        timer, counter = StageTimer(pipeline.device), pipeline.counter
        before, start = counter.rows if counter else 0.0, timer.now()
        prompts = tuning_prompts(_folder(plan))

        def sample() -> None:
            for i in range(0, SAMPLES, CHUNK):
                pipeline.generate(prompts[i : i + CHUNK], SEED, range(i, i + CHUNK))

        with patched(pipeline, "precision", "fp32"):  # so that the file does not depend on which precision came first
            curves = watch(sample)
        found = Calibration(curves, timer.now() - start, device)
        if counter:
            counter.rows = before
        write_json(path, asdict(found))
    _SPENT[method, pipeline.folder] = found.seconds
    return found


def spent(method: object, folder: Path | None) -> UpfrontCost:
    """What the calibration cost that ``method`` was last attached with, also where an earlier run had made it."""
    return UpfrontCost(0.0, 0, calibration_s=_SPENT.get((method, folder), 0.0))


def tuning_prompts(folder: Path) -> list[str]:
    """As many as there are samples: of the pipeline's ``prompts-train.txt``, else of its classes, else of a bundled list."""
    own, labels = folder / "prompts-train.txt", read_json(folder / "model_index.json").get("id2label")
    if own.exists():
        known = own.read_text(encoding="utf-8").splitlines()
    elif labels:
        known = [name.split(",")[0] for name in labels.values()]
    elif (folder / "tokenizer").exists():
        known = locate("presets/speed-prompts.txt").read_text(encoding="utf-8").splitlines()
    else:
        known = [str(i) for i in range(1000)]
    return [known[i * len(known) // SAMPLES] for i in range(SAMPLES)]


def _folder(plan: Plan) -> Path:
    if plan.backbone.folder is None:
        raise NotMeasured(
            expected="trained weights to calibrate on",
            got="random ones",
            remedy="name a pipeline folder, or leave the method out",
        )
    return plan.backbone.folder


def _path(what: str, key: str, device: str) -> Path:
    """Of one device: another's seconds are not this one's."""
    return calibrations_folder() / f"{what}-{key}-{slug(device)}.json"


def _key(method: object, plan: Plan, what: str) -> str:
    """What the curves depend on."""
    folder = _folder(plan)
    sampling = [len(plan.steps), *plan.guidance.scales, plan.solver, plan.timesteps]
    made_by = [code_digest((__name__, type(method).__module__)), packages_text()]
    model = [folder_digest(folder, plan.backbone.own_transformer), repr(plan.backbone.geometry)]  # which the images' size changes
    model += [plan.backbone.weights] if plan.backbone.weights else []
    facts = [model, what, sampling, SEED, tuning_prompts(folder), made_by]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:24]
