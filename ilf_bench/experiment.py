"""An experiment from preset to records: prepare, dry run, execute. Commands, benchmarks, studies and tests call these."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from rich.console import Console

from harness.config.description import describe_method
from harness.config.prompts import PromptList, load_prompts
from harness.config.spec import ExperimentSpec, load_spec
from harness.contracts import Method, why_unscored
from harness.cost.plan import Plan
from harness.errors import NotMeasured
from harness.execution.environment import gpu_facts
from harness.execution.experiment import Experiment, method_labels
from harness.execution.fitting import Placement, Room, foresee, loading
from harness.execution.identity import known_identity
from harness.execution.part import Part
from harness.execution.resuming import AnotherRun, choose_folder
from harness.execution.runner import Runner, check_disk
from harness.execution.sampler import image_pixels
from harness.history.store import History
from harness.models.loading import find_plan, load_pipeline, quiet_libraries
from harness.models.random_weights import DTYPES
from harness.paths import locate
from harness.results import BASELINE, Failure
from harness.sampling.pipeline import Pipeline
from harness.sampling.precision import resolve_device
from harness.storage.locations import history_path, place
from harness.storage.records import Run, read_run
from harness.timing.machine import busy_reasons
from harness.timing.stages import StageTimer
from ilf.settings import IlfSettings
from ilf_bench.console import console as terminal
from ilf_bench.console import print_line
from ilf_bench.engines import EngineMaker, local_engine
from ilf_bench.registry import Registry
from ilf_bench.scorer_commands import command_metrics, refuse_commands
from ilf_bench.stand_ins import with_stand_ins
from metrics.context import check_reference_path
from metrics.published.spec import read_scorers
from metrics.table import METRICS, MetricTable
from reports.load import RunResults, frames
from reports.render.build import build_report


@dataclass(frozen=True)
class Prepared:
    """A validated experiment and what it will cost. ``metrics``: those of its metrics that are not built in."""

    experiment: Experiment
    plans: dict[str, Plan | Failure]
    metrics: MetricTable


@dataclass(frozen=True)
class Executed:
    """A run that has been recorded, its report's page, and what could not be measured.

    ``since``: when and at which commit an earlier call had measured all of it, where this one had nothing to do.
    """

    run: Run
    page: Path
    failures: list[Failure]
    since: str = ""


@dataclass(frozen=True)
class DryRun:
    """What a run will take: seconds per image of each method whose cost is known, seconds in all, and bytes on disk.

    ``baseline`` is the cost of the full run in block evaluations per image. ``prompt_bytes``: of the encoded prompts that are
    kept in memory at the same time, and ``prompts_at_once`` how many these are. ``placed``: whether it fits, and ``peaks``: the
    memory in bytes that each method is predicted to need at its batch, None where its code reads numbers.
    ``busy``: who else was on the machine.
    """

    seconds_per_image: dict[str, float]
    baseline: float
    seconds: float
    disk_bytes: int
    prompt_bytes: int = 0
    prompts_at_once: int = 0
    placed: Placement | None = None
    room: Room | None = None
    peaks: Mapping[str, int | None] = field(default_factory=dict)
    busy: tuple[str, ...] = ()


def prepare(preset: str, overrides: dict[str, Any], plugins: Sequence[Path] = (), *, here: bool = True) -> Prepared:
    """Validate everything that can be validated before a weight is loaded; the device only where the work is done ``here``."""
    quiet_libraries()
    spec = load_spec(preset, overrides)
    registry = registry_for(spec, preset, overrides.get("scorers"), plugins)
    if here:
        resolve_device(spec.device)
    return planned(spec, find_plan(spec), load_prompts(spec.prompts), registry, here=here, preset=preset)


def registry_for(spec: ExperimentSpec, preset: str, named: Any = None, plugins: Sequence[Path] = ()) -> Registry:
    """Methods and metrics for a specification, whose metrics, scorers and reference are checked.

    ``named``: the scorers that the user named; a program that only the preset's own file names is refused.
    """
    IlfSettings.of(spec.training, spec.task)  # refuses a wrong training section
    registry = Registry.of(plugins).with_commands(command_metrics(None if named is None else locate(str(named))))
    registry.check_metrics(spec.metrics)
    if not (scorers := locate(spec.scorers)).is_dir():
        found = read_scorers(scorers)
        if named is None:
            refuse_commands(found, f"{scorers}, which {preset} names")
    if spec.reference is not None:
        check_reference_path(locate(spec.reference))
    return registry


def planned(
    spec: ExperimentSpec, plan: Plan, listed: PromptList, registry: Registry, *, here: bool = True, preset: str = ""
) -> Prepared:
    """The methods of a specification on the pipeline whose plain run is ``plan``, and what each costs."""
    built = [registry.method(text) for text in spec.methods]
    for method, text in zip(built, spec.methods, strict=True):
        registry.check_plan(text, method, plan)
    methods = with_stand_ins(method_labels(built), plan, spec, preset or spec.name, here=here)
    texts = {method.label: text for method, text in zip(built, spec.methods, strict=True)}
    plans = {label: predict(label, method, plan) for label, method in methods.items()}
    described = {label: describe_method(label, texts[label], method, plan, registry.plugins) for label, method in methods.items()}
    described = {
        label: replace(record, identity=known_identity(record, methods[label], spec, listed.record(), registry.plugins))
        for label, record in described.items()
    }
    prompts, one = listed.repeated(spec.samples), prompt_bytes(plan, spec.dtype)
    experiment = Experiment(spec, methods, described, prompts, listed.record(), registry.plugins, one)
    return Prepared(experiment, plans, {name: registry.metrics[name] for name in spec.metrics if name not in METRICS})


def prompt_bytes(plan: Plan, dtype: str) -> int:
    """Of one encoded prompt; 0 where prompts are classes."""
    shapes = plan.backbone.geometry
    return shapes.caption_tokens * shapes.caption_width * DTYPES[dtype].itemsize


def predict(label: str, method: Method, plan: Plan) -> Plan | Failure:
    """The method's cost, or why this one method cannot run here."""
    try:
        return method.plan(plan)
    except NotMeasured as error:
        return Failure(label, "", str(error))


def run(
    preset: str,
    overrides: Mapping[str, Any] | None = None,
    *,
    plugins: Sequence[Path] = (),
    out: str | Path = "runs",
    console: Console = terminal,
    again: bool = False,
) -> RunResults:
    """Compare methods in this process, from a preset's name (or a YAML file) to a recorded run and its report.

    ``overrides`` replaces fields of the preset: ``{"methods": ("full", "steps:10"), "samples": 64, "timing": {"rounds": 4}}``.
    ``plugins`` are Python files with methods of one's own, ``out`` is the folder of all runs and of their history. Calling it
    again resumes what was interrupted, and with ``again`` measures a finished run once more, beside it. Raises
    :class:`harness.errors.HarnessError` before anything is sampled where the preset is wrong; a method or metric that fails
    later stops no other and says why in the tables ``methods`` and ``scores``.
    """
    called = f"ilf_bench.run({preset!r}, {dict(overrides or {})!r})"
    prepared = prepare(preset, dict(overrides or {}), plugins)
    return frames(execute(prepared, place(str(out)), console, command=called, again=again).run)


def execute(
    prepared: Prepared,
    out: Path,
    console: Console = terminal,
    make_engine: EngineMaker = local_engine,
    *,
    command: str = "",
    again: bool = False,
) -> Executed:
    """Run, record in the history of ``out``, and build the report; the console shows how far it is.

    ``command``: how the run can be started again, for its record. ``again``: measure a finished run once more, beside it.
    """
    folder, why = choose_folder(prepared.experiment, out, again=again)
    try:
        runner = _run(prepared, folder, why, console, make_engine, command)
    except AnotherRun as found:  # what the model's files have shown
        runner = _run(prepared, found.folder, found.why, console, make_engine, command)
    run = read_run(runner.folder)
    History(history_path(out)).append(run)
    return Executed(run, build_report(run), runner.failures, runner.since)


def generate_part(
    prepared: Prepared, out: Path, part: Part, console: Console, make_engine: EngineMaker, *, command: str = ""
) -> list[Failure]:
    """Only the images of one part, beside the processes that generate the others; :func:`execute` then does all else."""
    folder, why = choose_folder(prepared.experiment, out, again=False)
    return _run(prepared, folder, why, console, make_engine, command, part).failures


def _run(
    prepared: Prepared,
    folder: Path,
    why: str,
    console: Console,
    make_engine: EngineMaker,
    command: str,
    part: Part | None = None,
) -> Runner:
    """All stages, or the images of one part, into one folder."""
    engine = make_engine(prepared.experiment, folder, prepared.metrics)
    runner = Runner(prepared.experiment, engine, folder, console, command=command)
    if why:
        print_line(why, console)
    print_line(f"run: {folder}", console)
    try:
        runner.generate(part) if part else runner.run()
    finally:
        engine.close()
    return runner


def dry_run(prepared: Prepared, out: Path) -> DryRun:
    """Memory that is needed, then expected time from one short timed batch, and disk; nothing is written."""
    experiment = prepared.experiment
    placed, room, peaks = foresee(experiment)
    with loading(placed, room):
        spec, pipeline = experiment.spec, load_pipeline(experiment.spec, placed.offload)
    busy = tuple(busy_reasons(gpu_facts(pipeline.device).get("cotenants")))
    disk = check_disk(experiment, out, image_pixels(pipeline))
    per_block, text, fixed = seconds_per_block(pipeline, experiment)
    known = {label: plan for label, plan in prepared.plans.items() if isinstance(plan, Plan)}
    seconds = {label: plan.block_evaluations * per_block + text + fixed for label, plan in known.items()}
    timed = sum(spec.timing.all_batches) * (spec.timing.rounds + spec.timing.warmup)
    total = spec.samples * text  # once for all methods; timed rounds encode again
    for label, each in seconds.items():
        scored = spec.batch if why_unscored(experiment.methods[label]) else spec.samples
        total += (each - text) * scored + each * timed * (2 if label == BASELINE else 1)
    window = len(next(experiment.windows())) if experiment.prompt_bytes else 0
    kept = window * experiment.prompt_bytes
    return DryRun(seconds, pipeline.plan().block_evaluations, total, disk, kept, window, placed, room, peaks, busy)


def seconds_per_block(pipeline: Pipeline, experiment: Experiment) -> tuple[float, float, float]:
    """Seconds per block evaluation, per image for text, per image for decoding and copy; of the second of two short batches."""
    spec, timer = experiment.spec, StageTimer(pipeline.device)
    batch = min(spec.batch, spec.samples)
    with pipeline.sampling(steps=2), pipeline.counting() as counter:
        pipeline.generate(experiment.prompts[:batch], spec.seed, range(batch))
        counter.rows = 0
        with timer.timing(pipeline):
            pipeline.generate(experiment.prompts[:batch], spec.seed, range(batch))
    return timer.denoise_s / counter.rows, timer.text_s / batch, (timer.decode_s + timer.copy_s) / batch
