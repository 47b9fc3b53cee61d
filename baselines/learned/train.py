"""What trains or searches each learned rival, with its default settings or others, and saves it with its cost.

A training takes a pipeline, prompts, the folder of what is learned, and a checkpoint from which it resumes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from baselines.learned import bespoke, deediff, ecad
from baselines.learned.routers import HarmoniCa, LearningToCache
from baselines.learned.search import SearchSettings, build_schedules
from baselines.learned.train_bespoke import BespokeSettings, build_solvers
from baselines.learned.train_deediff import ExitSettings, build_heads
from baselines.learned.train_routers import RouterSettings, build_router_files
from harness.errors import UsageError, did_you_mean
from harness.sampling.pipeline import Pipeline
from harness.training.fit import TrainSettings

Train = Callable[[Pipeline, Sequence[str], Path, Path], None]
FITTED = ("steps", "lr")  # of a TrainSettings inside a rival's settings: what is set by these names, in every stage
TUNING_SEEDS = 1000  # what is trained or tuned uses seeds below


@dataclass(frozen=True)
class Training:
    """How one rival is trained: ``build`` takes ``settings`` first. ``option`` of the method's text names what was trained."""

    build: Callable[[Any, Pipeline, Sequence[str], Path, Path], None]
    settings: Any
    option: str

    def __call__(self, pipeline: Pipeline, prompts: Sequence[str], folder: Path, checkpoint: Path) -> None:
        """Train, and write into ``folder``; from ``checkpoint`` where there is one."""
        self.build(self.settings, pipeline, prompts, folder, checkpoint)

    @property
    def names(self) -> tuple[str, ...]:
        """What :meth:`having` sets."""
        own = [field.name for field in fields(self.settings) if not isinstance(getattr(self.settings, field.name), TrainSettings)]
        return (*(FITTED if len(own) < len(fields(self.settings)) else ()), *own)

    @property
    def seeds(self) -> range:
        """The seeds whose noise it sees."""
        return range(self.settings.seed, self.settings.seed + 2)

    def having(self, values: Mapping[str, Any]) -> Training:
        """With other settings, numbers or their texts; lists are joined by commas. Raises :class:`UsageError` on others."""
        changed = asdict(self.settings)
        for name, value in values.items():
            if name not in self.names:
                known = ", ".join(self.names)
                raise UsageError(
                    expected=f"a setting out of {known}", got=repr(name), remedy=f"{did_you_mean(name, self.names)}name another"
                )
            if name in changed:
                changed[name] = value.split(",") if isinstance(changed[name], tuple) and isinstance(value, str) else value
                continue
            for stage in changed.values():
                if isinstance(stage, dict):
                    stage[name] = value
        try:
            settings = TypeAdapter(type(self.settings)).validate_python(changed)
        except ValidationError as error:
            first = error.errors()[0]
            raise UsageError(
                expected=f"{'.'.join(map(str, first['loc']))}: {first['msg']}", got=repr(first.get("input")), remedy="change it"
            ) from error
        _check(settings)
        return replace(self, settings=settings)


def _check(settings: Any) -> None:
    """Raise :class:`UsageError` on a number that no training can do with, and on a seed that is kept for evaluation."""
    flat = asdict(settings)
    flat |= {f"{name}.{fitted}": stage[fitted] for name, stage in flat.items() if isinstance(stage, dict) for fitted in FITTED}
    for name, value in flat.items():
        if name == "seed":
            if not 0 <= value < TUNING_SEEDS - 1:
                raise UsageError(expected=f"a seed from 0 to {TUNING_SEEDS - 2}", got=str(value), remedy="choose another")
        elif any(isinstance(one, int | float) and not one > 0 for one in (value if isinstance(value, tuple) else (value,))):
            raise UsageError(expected=f"{name} above 0", got=str(value), remedy="raise it")


_QUICK = partial(TrainSettings, warmup=10, ema=0.9, checkpoint_every=20)
_SOLVER = partial(TrainSettings, warmup=10, ema=0.95, checkpoint_every=25)
TRAININGS: dict[str, Training] = {
    LearningToCache.name: Training(
        partial(build_router_files, LearningToCache.name),
        RouterSettings(_QUICK(steps=200, lr=0.1), price=1.0, batch=32),
        "router",
    ),
    HarmoniCa.name: Training(
        partial(build_router_files, HarmoniCa.name), RouterSettings(_QUICK(steps=40, lr=0.2), price=0.5, batch=3), "router"
    ),
    deediff.NAME: Training(build_heads, ExitSettings(_QUICK(steps=300, lr=5e-3)), "heads"),
    bespoke.NAME: Training(build_solvers, BespokeSettings(_SOLVER(steps=100, lr=5e-4), _SOLVER(steps=100, lr=2e-4)), "solvers"),
    ecad.NAME: Training(build_schedules, SearchSettings(), "schedules"),
}
