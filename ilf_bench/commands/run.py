"""``ilf-bench run``: compare methods, from a preset to a report."""

from __future__ import annotations

import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from harness.execution.part import Part
from ilf_bench.console import console, print_line
from ilf_bench.options import (
    DEFAULT_OUT,
    EXIT_PARTIAL,
    Methods,
    Metrics,
    ModelOptions,
    Out,
    Plugins,
    Reference,
    Scorers,
    Track,
    chosen_preset,
    given,
    split,
    timing_overrides,
)

if TYPE_CHECKING:
    from harness.execution.ray import ClusterOptions
    from ilf_bench.engines import EngineMaker
    from ilf_bench.experiment import Prepared
    from reports.tracking.base import Tracker


@dataclass(frozen=True)
class RunOptions(ModelOptions):
    """Fields of a preset; None leaves what the preset says."""

    methods: Methods = None
    metrics: Metrics = None
    steps: Annotated[int | None, typer.Option(help="Steps of the full run.")] = None
    samples: Annotated[int | None, typer.Option(help="Images per method.")] = None
    seed: Annotated[int | None, typer.Option(help="Seed of the starting noise.")] = None
    precision: Annotated[str | None, typer.Option(help="auto, fp32, bf16 or fp16.")] = None
    compile: Annotated[
        bool | None, typer.Option("--compile/--eager", help="torch.compile of every transformer block.", show_default=False)
    ] = None
    offload: Annotated[
        str | None,
        typer.Option(help="auto, none, text or model: what leaves the GPU while others work; auto: text where memory is short."),
    ] = None
    rounds: Annotated[int | None, typer.Option(help="Interleaved timing rounds.")] = None
    warmup: Annotated[int | None, typer.Option(help="Warm-up rounds before these, recorded separately.")] = None
    batches: Annotated[str | None, typer.Option(help="Timed batch sizes, comma-separated; tables show the first.")] = None
    scorers: Scorers = None
    reference: Reference = None

    def values(self) -> dict[str, Any]:
        """The fields of a preset that these options replace, but for ``--set``."""
        values = {
            "methods": split(self.methods),
            "metrics": split(self.metrics),
            "steps": self.steps,
            "samples": self.samples,
            "seed": self.seed,
            "precision": self.precision,
            "compile": self.compile,
            "offload": self.offload,
            "timing": timing_overrides(self.rounds, self.warmup, self.batches),
            "scorers": self.scorers,
            "reference": self.reference,
        }
        return super().values() | given(values)


@dataclass(frozen=True)
class EngineOptions:
    """Which processes do the work."""

    engine: Annotated[str, typer.Option(help="local, or ray: many workers, on this machine or a cluster.")] = "local"
    address: Annotated[
        str | None, typer.Option(help="Address of a running Ray cluster, or auto; without it one is started here.")
    ] = None
    workers: Annotated[int, typer.Option(min=1, help="With ray: processes that generate.")] = 2
    score_workers: Annotated[
        int | None, typer.Option(min=1, help="With ray: processes that score; default: as many as generate.")
    ] = None
    workers_per_gpu: Annotated[int, typer.Option(min=1, help="With ray: processes that share a GPU; one keeps it busy.")] = 1
    score_device: Annotated[str | None, typer.Option(help="With ray: device for scoring; default: that of --device.")] = None
    score_batch: Annotated[int, typer.Option(min=1, help="With ray: images per scoring batch.")] = 64
    deadline: Annotated[float, typer.Option(min=1, help="With ray: seconds after which a worker is considered hung.")] = 1800

    def cluster(self, device: str) -> ClusterOptions:
        """For workers that sample on ``device``. Raises :class:`ImportError` without ray."""
        from harness.execution.ray import ClusterOptions

        scored_on = self.score_device or device
        return ClusterOptions(
            self.address,
            self.workers,
            self.score_workers,
            device,
            scored_on,
            self.score_batch,
            self.deadline,
            self.workers_per_gpu,
        )


def _part(text: str) -> Part:
    return Part.of(text)


def run(
    options: RunOptions,
    engine: EngineOptions,
    preset: Annotated[
        str | None, typer.Argument(help="A bundled preset or a YAML file; default: tiny-text, or what suits --pipeline.")
    ] = None,
    plugins: Plugins = None,
    out: Out = DEFAULT_OUT,
    tracker: Track = None,
    again: Annotated[bool, typer.Option("--again", help="Measure a finished run once more, beside it.")] = False,
    part: Annotated[
        Part | None,
        typer.Option(
            parser=_part, metavar="I/N", help="Only generate the I-th of N parts of all images; a run without it does the rest."
        ),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print cost, expected time and disk; sample nothing.")] = False,
) -> None:
    """Compare methods: generate, time, score, report."""
    from harness.config.spec import load_spec

    overrides = options.overrides()
    if preset is None:
        preset, overrides = chosen_preset(overrides)
    spec = load_spec(preset, overrides)  # what is wrong in it is said at once, before torch is loaded
    print_line(f"{spec.name}: {len(spec.methods)} methods, {spec.samples} images each; loading torch and diffusers")

    from ilf_bench import experiment, outcome
    from ilf_bench.engines import choose_engine
    from ilf_bench.lookup import track

    opened = _opened(tracker, out)  # before anything is sampled
    prepared = experiment.prepare(preset, overrides, plugins or (), here=engine.engine == "local" or dry_run)
    make_engine = choose_engine(engine.engine, lambda: engine.cluster(prepared.experiment.spec.device))
    if dry_run:
        outcome.print_dry_run(prepared, experiment.dry_run(prepared, out), console)
        return
    command = shlex.join(["ilf-bench", *sys.argv[1:]])
    if part is not None:
        raise typer.Exit(_generated(prepared, out, part, make_engine, command))
    executed = experiment.execute(prepared, out, console, make_engine, command=command, again=again)
    outcome.print_executed(prepared, executed, console)
    if opened is not None:
        print_line(track(out, opened))
    raise typer.Exit(EXIT_PARTIAL if executed.failures else 0)


def _generated(prepared: Prepared, out: Path, part: Part, make_engine: EngineMaker, command: str) -> int:
    from ilf_bench import experiment, outcome

    failures = experiment.generate_part(prepared, out, part, console, make_engine, command=command)
    outcome.print_part(part, failures, console)
    return EXIT_PARTIAL if failures else 0


def _opened(tracker: str | None, out: Path) -> Tracker | None:
    if tracker is None:
        return None
    from reports.tracking.open import open_tracker

    return open_tracker(tracker, out)
