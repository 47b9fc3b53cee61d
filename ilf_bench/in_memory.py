"""Compare methods on a diffusers pipeline that is already in memory, as a notebook or a training script has one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console

from harness.config.prompts import PromptList, checked_prompts
from harness.config.solvers import OWN
from harness.config.spec import ExperimentSpec, build_spec
from harness.errors import UsageError
from harness.execution.experiment import Experiment
from harness.execution.local import LocalEngine
from harness.execution.sampler import Lent, Sampler
from harness.execution.tasks import SCORE_BATCH, Engine
from harness.models.families.table import described, family_of
from harness.models.identity import memory_digest
from harness.models.loading import checked_guidance, pipeline_of, quiet_libraries
from harness.sampling.precision import exact_float32
from harness.storage.locations import place
from ilf_bench.console import console as terminal
from ilf_bench.engines import NONE, make_scorer
from ilf_bench.experiment import execute, planned, registry_for
from ilf_bench.recognise import methods_for
from metrics.table import MetricTable
from reports.load import RunResults, frames

IN_MEMORY = "in-memory:"  # how the names of such pipelines and prompts begin in records
OF_THE_PIPELINE = {"pipeline", "prompts", "task", "device", "dtype", "offload", "title", "decode_dtype", "decode_tiled"}
METRICS = ("psnr", "ssim")


def benchmark(
    pipe: Any,
    methods: Sequence[str] | None = None,
    prompts: Sequence[str] = (),
    metrics: Sequence[str] = METRICS,
    *,
    name: str = "",
    plugins: Sequence[Path] = (),
    out: str | Path = "runs",
    console: Console = terminal,
    **settings: Any,
) -> RunResults:
    """Compare ``methods`` on a diffusers pipeline in memory, on its device and in its dtype; a run like any other is recorded.

    ``prompts``: captions, or class names or indices for a class-to-image pipeline. ``methods`` (default: fewer steps, and caches
    that need neither weights nor calibration) and ``metrics`` as in a preset; the full run is added where it is missing.
    ``settings`` are further fields of a preset: ``steps`` and ``guidance`` (the family's usual ones), ``solver`` (the pipeline's
    own scheduler), ``samples`` (one per prompt), ``batch`` (at most 8), ``seed``, ``timing={"rounds": 3}``, ``scorers``,
    ``reference``. ``out`` is the folder of all runs. Calling it again with the same pipeline and settings resumes; the pipeline
    is identified by its parameters, buffers and configurations (:func:`harness.models.identity.memory_digest`), not by hooks or
    changed code. Afterwards the pipeline has its own scheduler again.

    Raises :class:`harness.errors.UsageError` on wrong settings, and :class:`harness.errors.ArtifactError` on a pipeline of an
    unknown family; a method or metric that fails later stops no other and says why in the tables ``methods`` and ``scores``.
    """
    quiet_libraries()
    family, digest = family_of(type(pipe).__name__), memory_digest(pipe)
    listed = checked_prompts(list(prompts))
    spec = _spec(pipe, family.task, digest, listed, methods, metrics, name, settings)
    registry = registry_for(spec, "the call", settings.get("scorers"), plugins)
    exact_float32()
    with borrowed(pipe):
        pipeline = pipeline_of(pipe, spec, spec.device, spec.precision, folder=_folder(pipe))
        checked_guidance(pipeline.family, pipeline.described, spec)
        prepared = planned(spec, pipeline.plan(), listed, registry)
        make_engine = partial(_engine, Lent(pipeline, digest))
        return frames(execute(prepared, place(str(out)), console, make_engine, command="ilf_bench.benchmark(pipe, ...)").run)


@contextmanager
def borrowed(pipe: Any) -> Iterator[None]:
    """Whatever happens inside the context, the pipeline has its own scheduler and its own progress bar again afterwards."""
    scheduler, bar = pipe.scheduler, getattr(pipe, "_progress_bar_config", None)
    try:
        yield
    finally:
        pipe.scheduler = scheduler
        if bar is None:
            vars(pipe).pop("_progress_bar_config", None)
        else:
            pipe._progress_bar_config = bar


def _spec(
    pipe: Any,
    task: str,
    digest: str,
    prompts: PromptList,
    methods: Sequence[str] | None,
    metrics: Sequence[str],
    name: str,
    settings: Mapping[str, Any],
) -> ExperimentSpec:
    """The specification of the run; every wrong field is named in one message."""
    usual = family_of(type(pipe).__name__).usual(described(pipe).configs)
    usual = replace(usual, steps=settings.get("steps", usual.steps))
    chosen = methods_for(usual) if methods is None else methods
    if own := OF_THE_PIPELINE & set(settings):
        raise UsageError(expected="settings that the pipeline does not have itself", got=sorted(own)[0], remedy="leave it out")
    content: dict[str, Any] = {
        "name": name or f"in-memory-{type(pipe).__name__.removesuffix('Pipeline').lower()}",
        "title": f"{type(pipe).__name__} in memory, {digest}",
        "task": task,
        "pipeline": f"{IN_MEMORY}{type(pipe).__name__}-{digest}",
        "prompts": f"{IN_MEMORY}{prompts.digest}",
        "methods": list(dict.fromkeys(["full", *chosen])),
        "metrics": list(metrics),
        "device": str(pipe.device),
        "dtype": str(pipe.transformer.dtype).removeprefix("torch."),
        "offload": "none",
        "solver": OWN,
        "steps": usual.steps,
        "guidance": usual.guidance,
        "samples": len(prompts.texts),
        "batch": min(8, settings.get("samples", len(prompts.texts))),
    }
    return build_spec(content | dict(settings), "the call")


def _folder(pipe: Any) -> Path | None:
    """The local folder that the pipeline was loaded from, where trained modules for it may lie; None where it was not."""
    named = str(pipe.config.get("_name_or_path") or "")
    return Path(named) if named and Path(named).is_dir() else None


def _engine(lent: Lent, experiment: Experiment, folder: Path, own: MetricTable = NONE) -> Engine:
    """Everything in this process, on the pipeline that is lent."""
    scorer = partial(make_scorer, experiment, folder, experiment.spec.device, SCORE_BATCH, own)
    return LocalEngine(partial(Sampler, experiment, folder, lent), scorer)
