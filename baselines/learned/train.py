"""What trains or searches each learned rival with its default settings, and saves it with its cost.

A training takes a pipeline, prompts, the folder of what is learned, and a checkpoint from which it resumes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from baselines.learned import bespoke, deediff, ecad
from baselines.learned.routers import HarmoniCa, LearningToCache
from baselines.learned.search import SearchSettings, build_schedules
from baselines.learned.train_bespoke import BespokeSettings, build_solvers
from baselines.learned.train_deediff import ExitSettings, build_heads
from baselines.learned.train_routers import RouterSettings, build_router_files
from harness.sampling.pipeline import Pipeline
from harness.training.fit import TrainSettings

Train = Callable[[Pipeline, Sequence[str], Path, Path], None]
_QUICK = partial(TrainSettings, warmup=10, ema=0.9, checkpoint_every=20)
_SOLVER = partial(TrainSettings, warmup=10, ema=0.95, checkpoint_every=25)
TRAININGS: dict[str, Train] = {
    LearningToCache.name: partial(
        build_router_files, LearningToCache.name, RouterSettings(_QUICK(steps=200, lr=0.1), price=1.0, batch=32)
    ),
    HarmoniCa.name: partial(build_router_files, HarmoniCa.name, RouterSettings(_QUICK(steps=40, lr=0.2), price=0.5, batch=3)),
    deediff.NAME: partial(build_heads, ExitSettings(_QUICK(steps=300, lr=5e-3))),
    bespoke.NAME: partial(
        build_solvers,
        BespokeSettings(_SOLVER(steps=100, lr=5e-4), _SOLVER(steps=100, lr=2e-4)),
    ),
    ecad.NAME: partial(build_schedules, SearchSettings()),
}
