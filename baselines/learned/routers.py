"""Learned caches: a router per step, block and part, and the two published ways to train it.

Learning-to-Cache (Ma et al. 2024, arXiv 2406.01733) and HarmoniCa (Huang et al. 2024, arXiv 2410.01723). Both freeze the
model and learn ``keep`` (0..1) for every part of every block on every step: while training, a part returns
keep * fresh + (1 - keep) * kept; afterwards it runs where keep is above a threshold and is re-used elsewhere. What is kept
is a part's output before the gate, so that it is added under the step's own gate.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import nn

from baselines.learned.folder import check_transformer, learned_folder
from baselines.support.caching import parts_replaced
from baselines.support.parts import ReuseTable
from harness.cost.macs import KINDS, Part
from harness.cost.plan import Backbone, Plan
from harness.errors import ArtifactError, UsageError
from harness.models.reading import read_seconds, reading
from harness.results import UpfrontCost
from harness.storage.records import read_json, write_json

if TYPE_CHECKING:
    from harness.sampling.pipeline import Pipeline

START = 2.0  # the logit that all routers begin with: keep = 0.88
NONE = torch.empty(0)


class Router(nn.Module):
    """``logits`` [steps, blocks, parts]; ``keep`` is their sigmoid on the ``routed`` steps and 1 on the others."""

    def __init__(self, steps: int, depth: int, parts: tuple[str, ...], routed: range) -> None:
        super().__init__()
        self.parts = parts
        self.logits = nn.Parameter(torch.full((steps, depth, len(parts)), START))
        self.register_buffer("full", torch.tensor([step not in routed for step in range(steps)])[:, None, None], persistent=False)

    @property
    def keep(self) -> torch.Tensor:
        """float32 [steps, blocks, parts] in 0..1."""
        return torch.where(self.get_buffer("full"), 1.0, self.logits.sigmoid())

    def save(self, path: Path, solver: str, guidance: float) -> None:
        """As JSON, to four digits."""
        keep = [[[round(x, 4) for x in block] for block in step] for step in self.keep.tolist()]
        write_json(path, {"parts": list(self.parts), "solver": solver, "guidance": guidance, "keep": keep})


class MixedParts:
    """The parts of all blocks while a router is trained. ``keep`` [(rows,) blocks, parts] mixes; None records."""

    def __init__(self, pipeline: Pipeline, parts: tuple[str, ...]) -> None:
        self.sites, self.parts = pipeline.sites, parts
        self.keep: torch.Tensor | None = None
        self.kept: list[list[Any]] = [[(NONE,) for _ in parts] for _ in self.sites]

    def attached(self) -> AbstractContextManager[None]:
        """Mix inside the context."""
        return parts_replaced(self.sites, KINDS, self._mixing)

    def _mixing(self, forward: Callable[..., Any], block: int, part: Part) -> Callable[..., Any]:
        number = self.parts.index(part.name)

        def call(*args: Any, **kwargs: Any) -> Any:
            output = forward(*args, **kwargs)
            several = output if isinstance(output, tuple) else (output,)
            if self.keep is not None:
                keep = self.keep[..., block, number].to(several[0].dtype)
                pairs = zip(several, self.kept[block][number], strict=True)
                several = tuple(_mixed(keep, fresh, kept) for fresh, kept in pairs)
            self.kept[block][number] = tuple(one.detach() for one in several)
            return several if isinstance(output, tuple) else several[0]

        return call


def _mixed(keep: torch.Tensor, fresh: torch.Tensor, kept: torch.Tensor) -> torch.Tensor:
    """Of what a part returns [rows, ...] the share ``keep`` (a scalar, or [rows]), and the rest of what it returned before."""
    keep = keep.view(-1, *[1] * (fresh.ndim - 1))
    return keep * fresh + (1 - keep) * kept


@dataclass(frozen=True)
class _Routed:
    """What both methods are once trained: the table of a router, cut at ``threshold``."""

    threshold: float = 0.1
    router: str | None = None
    name: ClassVar[str] = ""

    def __post_init__(self) -> None:
        if not 0 <= self.threshold <= 1:
            raise UsageError(expected="a threshold from 0 to 1", got=str(self.threshold), remedy=f"for example {self.name}:0.1")

    @property
    def label(self) -> str:
        """For example ``harmonica(0.1)``."""
        own = f", {Path(self.router).name}" if self.router else ""
        return f"{self.name}({self.threshold:g}{own})"

    def plan(self, plan: Plan) -> Plan:
        """The cost without the re-used parts."""
        check_transformer(self.folder(plan.backbone.folder), plan.backbone)
        return self.table(plan.backbone.folder).plan(plan, self.name)

    def reads(self, plan: Plan) -> list[Path]:
        """The router."""
        return [self.folder(plan.backbone.folder)]

    def upfront_cost(self, backbone: Backbone) -> UpfrontCost:
        """Training seconds, and one parameter per step, block and part."""
        folder = self.folder(backbone.folder)
        with reading(f"a router in {folder}", "restore or retrain it"):
            numbers = sum(len(block) for step in read_json(folder / "router.json")["keep"] for block in step)
        return UpfrontCost(read_seconds(folder / "training.json"), numbers)

    @contextmanager
    def attach(self, pipeline: Pipeline) -> Iterator[None]:
        """Re-use by the table inside the context."""
        with self.table(pipeline.folder).attached(pipeline, self.name):
            yield

    def folder(self, pipeline_folder: Path | None) -> Path:
        """Where the router lies: the named folder, or one of the method's name in the pipeline's."""
        return learned_folder(self.router, pipeline_folder, self.name, "router", "router.json", "a trained router")

    def table(self, pipeline_folder: Path | None) -> ReuseTable:
        """Parts whose keep is not above the threshold are re-used; a threshold of 0 re-uses nothing."""
        path = self.folder(pipeline_folder) / "router.json"
        content = read_json(path)
        try:
            parts, keep = content["parts"], content["keep"]
            reuse = tuple(
                tuple(frozenset(p for p, k in zip(parts, block, strict=True) if k < self.threshold) for block in row)
                for row in keep
            )
            return ReuseTable(reuse, content["solver"], float(content["guidance"]))
        except (KeyError, TypeError, ValueError) as error:
            raise ArtifactError(expected=f"a router in {path}", got=repr(error), remedy="train it again") from error


@dataclass(frozen=True)
class LearningToCache(_Routed):
    """Learning-to-Cache: every second step is full, the ones between are routed."""

    name: ClassVar[str] = "learning-to-cache"


@dataclass(frozen=True)
class HarmoniCa(_Routed):
    """HarmoniCa: every step but the first is routed, trained along the cached trajectory itself."""

    name: ClassVar[str] = "harmonica"
