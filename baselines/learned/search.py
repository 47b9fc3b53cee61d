"""The evolutionary search behind ECAD: NSGA-II (Deb et al. 2002) over cache schedules, cost against error."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch

from baselines.learned.ecad import encode
from baselines.support.parts import ReuseTable, part_names
from harness.errors import NotMeasured
from harness.execution.environment import device_name
from harness.execution.progress import tracked
from harness.storage.records import read_json, write_json
from harness.timing.stages import StageTimer

if TYPE_CHECKING:
    from harness.sampling.pipeline import Pipeline

MOST_PARTS = 5
Genome = npt.NDArray[np.bool_]  # [steps, blocks, parts]: True re-uses; the first step is all False
Fitness = tuple[float, float]  # cost as a share of the full run's blocks, mean squared error of the images in 0..1


@dataclass(frozen=True)
class SearchSettings:
    """``images`` are sampled for every candidate, ``at_once`` of them at once, from training prompts and a tuning seed (below
    1000)."""

    population: int = 12
    generations: int = 9
    images: int = 8
    mutation: float = 0.03
    seed: int = 500
    at_once: int = 64


def dominates(a: Fitness, b: Fitness) -> bool:
    """At least as good in both and better in one."""
    return a[0] <= b[0] and a[1] <= b[1] and a != b


def ranks(fitness: Sequence[Fitness]) -> list[int]:
    """0 for what nothing dominates, 1 for what only those dominate, and so on."""
    result, left, rank = [0] * len(fitness), set(range(len(fitness))), 0
    while left:
        front = {i for i in left if not any(dominates(fitness[j], fitness[i]) for j in left)}
        for i in front:
            result[i] = rank
        left, rank = left - front, rank + 1
    return result


def crowding(fitness: Sequence[Fitness]) -> list[float]:
    """How far the neighbours on both axes are: larger is less crowded, infinite at the ends."""
    result = [0.0] * len(fitness)
    for axis in (0, 1):
        order = sorted(range(len(fitness)), key=lambda i: fitness[i][axis])
        spread = fitness[order[-1]][axis] - fitness[order[0]][axis] or 1.0
        result[order[0]] = result[order[-1]] = float("inf")
        for before, i, after in zip(order, order[1:], order[2:], strict=False):
            result[i] += (fitness[after][axis] - fitness[before][axis]) / spread
    return result


class Search:
    """One search on one pipeline. Every fitness is kept in ``store`` once measured, so that an interrupted search continues."""

    def __init__(self, pipeline: Pipeline, prompts: Sequence[str], settings: SearchSettings, store: Path) -> None:
        self.pipeline, self.settings, self.store = pipeline, settings, store
        self.prompts = [prompts[i * len(prompts) // settings.images] for i in range(settings.images)]
        self.parts = part_names(pipeline)
        if len(self.parts) > MOST_PARTS:
            raise NotMeasured(
                expected=f"blocks of at most {MOST_PARTS} parts, which a schedule writes in one digit",
                got=", ".join(self.parts),
                remedy="leave the method out",
            )
        self.known: dict[str, Fitness] = {}
        self.seconds = 0.0
        if store.exists():
            stored = read_json(store)
            self.known, self.seconds = {key: tuple(value) for key, value in stored["known"].items()}, stored["seconds"]
        self.random = np.random.default_rng(settings.seed)
        timer = StageTimer(pipeline.device)
        start = timer.now()
        self.full = self._sample()
        self.seconds += 0.0 if self.known else timer.now() - start

    def run(self) -> dict[Fitness, ReuseTable]:
        """All schedules that no other beats, by fitness."""
        genomes = self.first()
        for _ in tracked(range(self.settings.generations), "ecad search"):
            genomes = self._survivors([*genomes, *self._children(genomes)])
        fitness = [self.fitness(genome) for genome in genomes]
        return {f: self.table(g) for f, g, rank in zip(fitness, genomes, ranks(fitness), strict=True) if rank == 0}

    def first(self) -> list[Genome]:
        """Every 2nd to 5th step full, for all parts and for single ones, and random schedules of all densities."""
        shape = (self.pipeline.steps, len(self.pipeline.blocks), len(self.parts))
        genomes = []
        for number in range(self.settings.population):
            genome = np.zeros(shape, np.bool_)
            interval, chosen = 2 + number // 2 % 4, slice(None) if number % 2 == 0 else slice(number // 8 % len(self.parts), None)
            genome[np.arange(shape[0]) % interval != 0, :, chosen] = True
            if number >= self.settings.population // 2:
                genome = self.random.random(shape) < 0.1 + 0.8 * self.random.random()
            genome[0] = False
            genomes.append(genome)
        return genomes

    def table(self, genome: Genome) -> ReuseTable:
        """The schedule of a genome."""
        reuse = tuple(tuple(frozenset(np.array(self.parts)[block].tolist()) for block in step) for step in genome)
        return ReuseTable(reuse, self.pipeline.solver, self.pipeline.guidance.scale)

    def fitness(self, genome: Genome) -> Fitness:
        """Measured once a genome."""
        table = self.table(genome)
        key = "|".join(encode(table, self.parts))
        if key not in self.known:
            timer = StageTimer(self.pipeline.device)
            start, plan = timer.now(), self.pipeline.plan()
            with table.attached(self.pipeline, "a candidate"):
                error = float((self._sample() - self.full).square().mean())
            self.known[key] = table.plan(plan, "a candidate").block_evaluations / plan.block_evaluations, error
            self.seconds += timer.now() - start
            write_json(self.store, {"known": self.known, "seconds": self.seconds})
        return self.known[key]

    def _sample(self) -> torch.Tensor:
        """float32 [images, 3, H, W] in 0..1."""
        numbers, size = range(len(self.prompts)), self.settings.at_once
        chunks = [numbers[i : i + size] for i in range(0, len(numbers), size)]
        made = [self.pipeline.generate([self.prompts[i] for i in chunk], self.settings.seed, chunk) for chunk in chunks]
        return torch.cat(made).float() / 255

    def _children(self, genomes: Sequence[Genome]) -> list[Genome]:
        """As many, each of two parents that won a tournament: whole steps from either, then flipped bits."""
        fitness = [self.fitness(genome) for genome in genomes]
        keys = [(rank, -lonely) for rank, lonely in zip(ranks(fitness), crowding(fitness), strict=True)]
        children = []
        for _ in genomes:
            pairs = self.random.integers(len(genomes), size=(2, 2))
            mother, father = (genomes[min(pair, key=lambda i: keys[i])] for pair in pairs)
            child = np.where(self.random.random(len(mother))[:, None, None] < 0.5, mother, father)
            child = child ^ (self.random.random(child.shape) < self.settings.mutation)
            child[0] = False
            children.append(child)
        return children

    def _survivors(self, genomes: Sequence[Genome]) -> list[Genome]:
        """The best by rank, then by crowding distance."""
        different = list({genome.tobytes(): genome for genome in genomes}.values())
        fitness = [self.fitness(genome) for genome in different]
        rank, lonely = ranks(fitness), crowding(fitness)
        order = sorted(range(len(different)), key=lambda i: (rank[i], -lonely[i]))
        return [different[i] for i in order[: self.settings.population]]


def build_schedules(settings: SearchSettings, pipeline: Pipeline, prompts: Sequence[str], folder: Path, checkpoint: Path) -> None:
    """Search, and write ``schedules.json`` with the front and what it cost."""
    search = Search(pipeline, prompts, settings, checkpoint)
    front = search.run()
    found = [
        {"cost": f[0], "error": f[1], "reuse": encode(table, search.parts)}
        for f, table in sorted(front.items(), key=lambda item: item[0])
    ]
    cost = {
        "seconds": search.seconds,
        "candidates": len(search.known),
        "images": len(search.known) * settings.images,
        "device": pipeline.device,
        "machine": device_name(pipeline.device),
        "settings": asdict(settings),
    }
    write_json(
        folder / "schedules.json",
        {
            "solver": pipeline.solver,
            "guidance": pipeline.guidance.scale,
            "parts": list(search.parts),
            "front": found,
            "search": cost,
        },
    )
