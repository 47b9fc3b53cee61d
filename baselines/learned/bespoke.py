"""A solver learned for one model at each step count (Shaul et al. 2024, arXiv 2403.01329): no network is changed or added.

Trained end to end on noise and the converged images of the same noise; see
:class:`harness.training.learned_solver.LearnedSolver`.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from baselines.learned.folder import check_transformer, learned_folder
from harness.cost.plan import Backbone, Plan
from harness.errors import UsageError
from harness.models.reading import reading
from harness.results import UpfrontCost
from harness.sampling.schedulers.solver_table import LEARNED, SolverTable
from harness.storage.records import read_json

if TYPE_CHECKING:
    from harness.sampling.pipeline import Pipeline

NAME, FILE = LEARNED, "solvers.json"


@dataclass(frozen=True)
class Bespoke:
    """The learned solver of ``steps`` steps. ``solvers``: a folder with solvers.json (default: ``bespoke`` in the pipeline's)."""

    steps: int = 8
    solvers: str | None = None

    @property
    def label(self) -> str:
        """For example ``bespoke(8 steps)``."""
        own = f", {Path(self.solvers).name}" if self.solvers else ""
        return f"{NAME}({self.steps} steps{own})"

    def plan(self, plan: Plan) -> Plan:
        """The cost of one step, ``steps`` times."""
        check_transformer(self.folder(plan.backbone.folder), plan.backbone)
        table = self.table(plan.backbone.folder, plan.guidance.scale)
        return plan.scheduled((plan.step_cost,) * self.steps, NAME, table.timesteps)

    def reads(self, plan: Plan) -> list[Path]:
        """The learned solvers."""
        return [self.folder(plan.backbone.folder) / FILE]

    def upfront_cost(self, backbone: Backbone) -> UpfrontCost:
        """The seconds of training; its few coefficients are no parameters of a network."""
        content = self._read(backbone.folder)
        with reading("the seconds of a training", "train again"):
            return UpfrontCost(float(content["seconds"]), 0)

    def attach(self, pipeline: Pipeline) -> AbstractContextManager[None]:
        """Run on the learned solver inside the context."""
        return pipeline.sampling(table=self.table(pipeline.folder, pipeline.guidance.scale))

    def table(self, pipeline_folder: Path | None, guidance: float) -> SolverTable:
        """Raises :class:`UsageError` for step counts and guidance scales that none was learned for."""
        content = self._read(pipeline_folder)
        with reading("solvers as the training writes them", "train again"):
            counts, trained = ", ".join(sorted(content["tables"], key=len)), float(content["guidance"])
            if str(self.steps) in content["tables"] and guidance == trained:
                return SolverTable.read(content["tables"][str(self.steps)])
        raise UsageError(
            expected=f"{counts} steps at guidance {trained:g}, for which one was learned",
            got=f"{self.steps} steps at guidance {guidance:g}",
            remedy="choose one of these, or train others",
        )

    def _read(self, pipeline_folder: Path | None) -> dict[str, Any]:
        content: dict[str, Any] = read_json(self.folder(pipeline_folder) / FILE)
        return content

    def folder(self, pipeline_folder: Path | None) -> Path:
        """Where the solvers lie: the named folder, or one of the method's name in the pipeline's."""
        return learned_folder(self.solvers, pipeline_folder, NAME, "solvers", FILE, "learned solvers")
