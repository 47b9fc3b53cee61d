"""Choosing every rival's operating points on an equal budget of images, on prompts and a seed that nothing is judged on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from rich.progress import track

from harness.config.methods import parse_method
from harness.errors import HarnessError
from harness.execution.identity import FILES, read_identity
from harness.models.identity import model_digest
from harness.sampling.pipeline import Pipeline
from harness.storage.records import read_json, write_json
from ilf_bench.registry import BUILT_IN

SEED = 500  # below 1000: for tuning only
IMAGES = 16  # a setting
SETTINGS = 6  # a rival
BUDGETS = (0.6, 0.4)  # of the full run's block evaluations: one operating point each
SPACED = "spacing:1.5"  # ILF's timesteps, so that what a cache gains from them is seen apart from ILF

# Six settings for each, ILF among them, so that all are tuned with equally many images.
GRIDS: Mapping[str, tuple[str, ...]] = {
    "ilf": tuple(f"ilf:steps={n}" for n in (5, 6, 7, 8, 9, 10)),
    "deepcache": (
        *(f"deepcache:interval={n}" for n in (2, 3, 4, 5)),
        "deepcache:interval=2:first=2:last=11",
        "deepcache:interval=3:first=2:last=11",
    ),
    "delta-dit": tuple(f"delta-dit:interval={n}" for n in (2, 3, 4, 5, 7, 10)),
    "encoder": tuple(f"encoder:keys={n}" for n in (12, 10, 8, 6, 5, 4)),
    "step-rehash": tuple(f"step-rehash:threshold={x}" for x in (0.99, 0.97, 0.95, 0.9, 0.8, 0.7)),
    "fora": tuple(f"fora:{n}" for n in (2, 3, 4, 5, 6, 7)),
    "taylorseer": tuple(f"taylorseer:interval={n}:order={k}" for n in (2, 3, 4) for k in (1, 2)),
    "smoothcache": tuple(f"smoothcache:{x}" for x in (0.05, 0.1, 0.15, 0.2, 0.3, 0.4)),
    "pab": (
        "pab:attention=2:cross=4",
        "pab:attention=4:cross=8",
        *(f"pab:attention={n}:cross={2 * n}:low=0:high=1000" for n in (2, 3, 4, 5)),
    ),
    "t-gate": tuple(f"t-gate:{x}" for x in (0.8, 0.7, 0.6, 0.5, 0.4, 0.3)),
    "guidance-reuse": tuple(f"guidance-reuse:interval={n}:first={k}" for n in (2, 3, 4) for k in (1, 3)),
    "first-block": tuple(f"first-block:{x}" for x in (0.05, 0.1, 0.15, 0.2, 0.3, 0.4)),
    "teacache": tuple(f"teacache:{x}" for x in (0.05, 0.1, 0.2, 0.3, 0.5, 0.8)),
    "magcache": tuple(f"magcache:threshold={x}:most={n}" for x in (0.06, 0.15, 0.3) for n in (2, 4)),
    "learning-to-cache": tuple(f"learning-to-cache:{x}" for x in (0.1, 0.3, 0.5, 0.6, 0.7, 0.8)),
    "harmonica": tuple(f"harmonica:{x}" for x in (0.3, 0.4, 0.5, 0.6, 0.7, 0.8)),
    "deediff": tuple(f"deediff:{x}" for x in (0.01, 0.02, 0.04, 0.06, 0.1, 0.15)),
    "ecad": tuple(f"ecad:{x}" for x in (0.9, 0.8, 0.7, 0.6, 0.5, 0.4)),
    "bespoke": (
        *(f"bespoke:{n}" for n in (5, 6, 8, 10)),
        "bespoke:10+fora:2",
        "bespoke:10+taylorseer:interval=2:order=1",
    ),
    "t-stitch": tuple(f"t-stitch:{x}" for x in (0.2, 0.4, 0.5, 0.6, 0.8, 1.0)),
    "bottleneck": tuple(f"bottleneck:first={a}:last={b}" for a in (0.1, 0.2) for b in (0.6, 0.4, 0.2)),
    **{
        f"{cache}, {SPACED}": tuple(f"steps:{n}+{SPACED}+{text}" for n in (16, 12, 10) for text in texts)
        for cache, texts in (
            ("deepcache", ("deepcache:interval=2", "deepcache:interval=3")),
            ("fora", ("fora:2", "fora:3")),
            ("taylorseer", ("taylorseer:interval=2:order=1", "taylorseer:interval=3:order=1")),
            ("first-block", ("first-block:0.1", "first-block:0.2")),
        )
    },
}


@dataclass(frozen=True)
class Setting:
    """One setting as measured: ``cost`` as a share of the full run's blocks, ``error`` the mean squared distance of its images
    (0..1) to the full run's. ``failure`` says why there is none."""

    text: str
    cost: float | None = None
    error: float | None = None
    failure: str = ""


def chosen(settings: Sequence[Setting]) -> list[str]:
    """For each of :data:`BUDGETS` the setting of least error within it; the cheapest one where none is within any."""
    measured = [s for s in settings if s.cost is not None and s.error is not None]
    within = [[s for s in measured if s.cost is not None and s.cost <= budget] for budget in BUDGETS]
    best = [min(some, key=lambda s: s.error or 0.0).text for some in within if some]
    if measured and not best:
        best = [min(measured, key=lambda s: s.cost or 0.0).text]
    return list(dict.fromkeys(best))


class Tuner:
    """Measures the grids on one pipeline. What has been measured is kept in ``store``, a rival at a time.

    A rival is measured again where its grid, the pipeline's weights or its own have changed.
    """

    def __init__(self, pipeline: Pipeline, prompts: Sequence[str], store: Path) -> None:
        self.pipeline, self.store = pipeline, store
        self.prompts = [prompts[i * len(prompts) // IMAGES] for i in range(IMAGES)]
        self.known: dict[str, Any] = read_json(store) if store.exists() else {}

    def unknown(self) -> list[str]:
        """The rivals that :meth:`run` will measure."""
        return [rival for rival in GRIDS if self.known.get(rival, {}).get("key") != self._key(rival)]

    def run(self) -> dict[str, list[Setting]]:
        """The settings of every rival."""
        for rival in track(self.unknown(), description="tuning"):
            measured = [asdict(self._measure(text)) for text in GRIDS[rival]]
            self.known[rival] = {"key": self._key(rival), "settings": measured}
            write_json(self.store, self.known)
        return {rival: [Setting(**entry) for entry in self.known[rival]["settings"]] for rival in GRIDS}

    def _key(self, rival: str) -> str:
        plan, model = self.pipeline.plan(), model_digest(self.pipeline)
        own = [read_identity(parse_method(text, BUILT_IN), plan, (), model)[FILES] for text in GRIDS[rival]]
        sampling = [SEED, self.prompts, self.pipeline.steps, *self.pipeline.guidance.scales, self.pipeline.solver]
        return hashlib.sha256(json.dumps([GRIDS[rival], model, own, sampling]).encode()).hexdigest()[:16]

    @cached_property
    def full(self) -> torch.Tensor:
        """The full run's images, float32 [IMAGES, 3, H, W] in 0..1."""
        return self._sample()

    def _measure(self, text: str) -> Setting:
        method = parse_method(text, BUILT_IN)
        try:
            with self.pipeline.counting() as counter, method.attach(self.pipeline):
                images = self._sample()
        except HarnessError as why:
            return Setting(text, failure=str(why))
        cost = counter.rows / IMAGES / self.pipeline.plan().block_evaluations
        return Setting(text, cost, float((images - self.full).square().mean()))

    def _sample(self) -> torch.Tensor:
        return self.pipeline.generate(self.prompts, SEED, range(IMAGES)).float() / 255
