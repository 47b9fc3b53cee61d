"""ECAD (Aggarwal et al. 2025, arXiv 2506.15682): a cache schedule found by evolutionary search, frozen in a file.

The search is in :mod:`baselines.learned.search`; the paper's genome, one bit for each step, block and part (attention,
cross-attention, MLP), is kept. Its fitness is ImageReward on 100 prompts; here it is the distance to the full run's images.
"""

from __future__ import annotations

import string
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from baselines.learned.folder import check_transformer, learned_folder
from baselines.support.parts import ReuseTable
from harness.cost.plan import Backbone, Plan
from harness.errors import ArtifactError, NotMeasured, UsageError
from harness.models.reading import reading
from harness.results import UpfrontCost
from harness.storage.records import read_json

if TYPE_CHECKING:
    from harness.sampling.pipeline import Pipeline

NAME = "ecad"
NAMES = ("attn1", "attn2", "ff")  # the parts that the bits of a schedule stand for where it names no others, lowest bit first
DIGITS = string.digits + string.ascii_lowercase


def encode(table: ReuseTable, names: Sequence[str] = NAMES) -> list[str]:
    """One line per step, one digit per block (0 to 9, then letters): the sum over what is re-used of 1 for the first of
    ``names``, 2 for the second, 4 for the third and so on; five at most."""
    return ["".join(DIGITS[sum(1 << names.index(part) for part in block)] for block in step) for step in table.reuse]


def decode(lines: list[str], solver: str, guidance: float, names: Sequence[str] = NAMES) -> ReuseTable:
    """The inverse of :func:`encode`."""
    reuse = (tuple(frozenset(n for i, n in enumerate(names) if int(digit, 36) >> i & 1) for digit in line) for line in lines)
    return ReuseTable(tuple(reuse), solver, guidance)


@dataclass(frozen=True)
class Ecad:
    """The best schedule found that evaluates at most ``budget`` (0..1) of the full run's blocks.

    ``schedules``: a folder with ``schedules.json`` (default: ``ecad`` inside the pipeline's folder).
    """

    budget: float = 0.6
    schedules: str | None = None

    def __post_init__(self) -> None:
        if not 0 < self.budget <= 1:
            raise UsageError(expected="a budget above 0 and up to 1", got=str(self.budget), remedy="for example ecad:0.6")

    @property
    def label(self) -> str:
        """For example ``ecad(0.6)``."""
        own = f", {Path(self.schedules).name}" if self.schedules else ""
        return f"{NAME}({self.budget:g}{own})"

    def plan(self, plan: Plan) -> Plan:
        """The cost without the re-used parts."""
        check_transformer(self.folder(plan.backbone.folder), plan.backbone)
        return self.table(plan.backbone.folder).plan(plan, NAME)

    def reads(self, plan: Plan) -> list[Path]:
        """The searched schedules."""
        return [self.folder(plan.backbone.folder) / "schedules.json"]

    def upfront_cost(self, backbone: Backbone) -> UpfrontCost:
        """The seconds of the search; no parameters."""
        content = self._read(backbone.folder)
        with reading("the seconds of a search", "search again"):
            return UpfrontCost(float(content["search"]["seconds"]), 0)

    @contextmanager
    def attach(self, pipeline: Pipeline) -> Iterator[None]:
        """Re-use by the schedule inside the context."""
        with self.table(pipeline.folder).attached(pipeline, NAME):
            yield

    def _read(self, pipeline_folder: Path | None) -> dict[str, Any]:
        content: dict[str, Any] = read_json(self.folder(pipeline_folder) / "schedules.json")
        return content

    def folder(self, pipeline_folder: Path | None) -> Path:
        """Where the schedules lie: the named folder, or one of the method's name in the pipeline's."""
        return learned_folder(self.schedules, pipeline_folder, NAME, "schedules", "schedules.json", "searched schedules")

    def table(self, pipeline_folder: Path | None) -> ReuseTable:
        """The schedule of least error within the budget. Raises :class:`NotMeasured` where all are more expensive."""
        content = self._read(pipeline_folder)
        try:
            within = [found for found in content["front"] if found["cost"] <= self.budget]
            if not within:
                cheapest = min(found["cost"] for found in content["front"])
                raise NotMeasured(
                    expected=f"a schedule of at most {self.budget:g}", got=f"{cheapest:.3f}", remedy="raise the budget"
                )
            best = min(within, key=lambda found: found["error"])
            return decode(best["reuse"], content["solver"], float(content["guidance"]), content.get("parts", NAMES))
        except (KeyError, TypeError, ValueError) as error:
            raise ArtifactError(expected="schedules as the search writes them", got=repr(error), remedy="search again") from error
