"""DeeDiff (Tang et al. 2023, arXiv 2309.17074): each sample leaves the network as soon as a small head is sure enough.

After every block but the last, a head predicts from the hidden states and the timestep how far the model's output is from
final (its uncertainty), and an exit turns the hidden states into what the last block would have left. Where the paper trains
the whole network with its exits, the backbone is frozen here, and the target is its own output, so no data are needed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from baselines.learned.folder import check_transformer, learned_folder
from harness.cost.plan import Backbone, Plan
from harness.errors import ArtifactError, UsageError
from harness.models.families.base import Conditioning, State
from harness.models.reading import load_part, read_seconds
from harness.results import UpfrontCost
from harness.sampling.sites import Run, Site
from harness.sampling.transfer import to_device

if TYPE_CHECKING:
    from harness.sampling.pipeline import Pipeline

NAME = "deediff"


@dataclass(frozen=True)
class DeeDiff:
    """Leave after the first block whose uncertainty is below ``threshold``: each sample for itself, at every step again.

    Both guidance branches of a sample leave together, when the less certain one may. ``heads``: a folder with trained exit
    heads (default: ``deediff`` inside the pipeline's folder). What runs is known only afterwards, so the predicted cost is that
    of the full run, and the heads (each a 24th of a block) are not counted. Rows leave between blocks, so it does not compose
    with methods that keep what blocks returned.
    """

    threshold: float = 0.05
    heads: str | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.threshold <= 1:
            raise UsageError(expected="a threshold from 0 to 1", got=str(self.threshold), remedy="for example deediff:0.05")

    @property
    def label(self) -> str:
        """For example ``deediff(0.05)``."""
        own = f", {Path(self.heads).name}" if self.heads else ""
        return f"{NAME}({self.threshold:g}{own})"

    def plan(self, plan: Plan) -> Plan:
        """At most the full cost."""
        check_transformer(find_heads(self.heads, plan.backbone.folder), plan.backbone)
        return plan.at_most()

    def reads(self, plan: Plan) -> list[Path]:
        """The exit heads."""
        return [find_heads(self.heads, plan.backbone.folder)]

    def upfront_cost(self, backbone: Backbone) -> UpfrontCost:
        """Training seconds and parameters of the heads."""
        folder = find_heads(self.heads, backbone.folder)
        return UpfrontCost(read_seconds(folder / "training.json"), sum(p.numel() for p in load_heads(folder).parameters()))

    @contextmanager
    def attach(self, pipeline: Pipeline) -> Iterator[None]:
        """Put the exits behind the blocks inside the context."""
        folder = find_heads(self.heads, pipeline.folder)
        heads = load_heads(folder).to(pipeline.device, next(pipeline.transformer.parameters()).dtype)
        geometry = pipeline.geometry
        wanted = (geometry.depth, geometry.width)
        if (heads.config.depth, heads.config.width) != wanted:
            raise ArtifactError(
                expected=f"heads for {wanted[0]} blocks of width {wanted[1]}",
                got=f"{heads.config.depth} of {heads.config.width} in {folder}",
                remedy="use those of this backbone",
            )
        with _Exits(pipeline, heads, self.threshold).attached():
            yield


class _Exits:
    """The rows that are still inside, and the image's tokens of those that have left."""

    def __init__(self, pipeline: Pipeline, heads: Any, threshold: float) -> None:
        self.pipeline, self.heads, self.threshold = pipeline, heads, threshold
        self.tokens = pipeline.geometry.tokens
        self.inside: torch.Tensor | None = None  # row numbers; None: all
        self.left = torch.empty(0)

    @contextmanager
    def attached(self) -> Iterator[None]:
        sites = self.pipeline.sites
        with ExitStack() as stack:
            for site in sites:
                stack.enter_context(site.changed(self._wrapped(site, site.number == len(sites))))
            yield

    def _wrapped(self, site: Site, is_last: bool) -> Callable[[Run, State, Conditioning], State]:
        def call(run: Run, state: State, conditioning: Conditioning) -> State:
            if site.number == 1:
                self.inside, self.left = None, site.segment.of_image(state, self.tokens)
            if self.inside is not None:
                conditioning = site.rows(conditioning, len(self.left), self.inside)
            if len(state[0]):
                state = run(state, conditioning)
            return self._merge(site, state) if is_last else self._leave(site, state)

        return call

    def _leave(self, site: Site, state: State) -> State:
        """Only the rows that stay."""
        hidden_states, number = site.segment.of_image(state, self.tokens), site.number - 1
        if self.threshold == 0 or not len(hidden_states):
            return state
        t = torch.full((len(hidden_states),), float(self.pipeline.clock.t), device=hidden_states.device)
        uncertainty = self.heads.uncertainty(number, hidden_states, t)
        rows = self.pipeline.guidance.rows
        if rows > 1:
            uncertainty = uncertainty.view(rows, -1).amax(dim=0).repeat(rows)
        done = (uncertainty < self.threshold).cpu()  # on a GPU the host waits here, once per block
        if not done.any():
            return state
        if self.inside is None:
            self.inside = torch.arange(len(hidden_states), device=hidden_states.device)
        go, stay = (to_device(rows.nonzero()[:, 0], hidden_states.device) for rows in (done, ~done))
        leaving = self.heads.leave(number, hidden_states[go]).to(hidden_states.dtype)
        self.left = self.left.to(hidden_states.dtype).index_copy(0, self.inside[go], leaving)
        self.inside = self.inside[stay]
        return tuple(stream[stay] for stream in state)

    def _merge(self, site: Site, state: State) -> State:
        """All rows again."""
        if self.inside is None:
            return state
        image = site.segment.of_image(state, self.tokens)
        merged = self.left.to(image.dtype).index_copy(0, self.inside, image)
        others = state[0].new_zeros(len(merged), *state[0].shape[1:])  # where captions are joined, nobody reads them any more
        return site.segment.with_image((others,), merged)


def find_heads(name: str | None, pipeline_folder: Path | None) -> Path:
    """The heads' folder. Raises :class:`NotMeasured` where none is named and the pipeline brings none."""
    return learned_folder(name, pipeline_folder, NAME, "heads", "config.json", "trained exit heads")


def load_heads(folder: Path) -> Any:
    """In float32, eval mode. Raises :class:`ArtifactError` on missing, truncated or foreign weights."""
    from baselines.learned.exit_heads import ExitHeads

    return load_part(ExitHeads, folder, "exit heads", "restore or retrain them", low_cpu_mem_usage=False).float()
