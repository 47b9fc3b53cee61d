"""Classifier-free guidance as a pipeline does it: when it is on, how its two branches run, and what they make together."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, TypeVar

if TYPE_CHECKING:
    import torch

T = TypeVar("T")

Layout = Literal["null first", "conditional first", "calls", "none"]


@dataclass(frozen=True)
class Guidance:
    """The guidance of one run at ``scale`` s.

    ``layout``: both branches are the rows of one call, the ``null first`` or the ``conditional first``; or two ``calls``, the
    conditional one first; or ``none``: the model has no second branch (a distilled one, or one that is told the scale).
    A single branch runs at a scale of ``off`` or less. ``base``: the guided prediction is null + s (c - null), or with base
    ``conditional`` c + s (c - null). ``rescaled``: the pipeline then gives it the norm of c, token by token. ``most_norm``: it is
    scaled down where its norm over an image would be more than so many times c's (0: never). ``told``: the scale
    that a guidance-distilled model gets as an input beside all this.

    >>> Guidance(4.5).branches, Guidance(1.0).branches
    (2, 1)
    """

    scale: float = 1.0
    layout: Layout = "null first"
    off: float = 1.0
    base: Literal["null", "conditional"] = "null"
    rescaled: bool = False
    most_norm: float = 0.0
    told: float | None = None

    @property
    def on(self) -> bool:
        """Whether a null branch runs."""
        return self.layout != "none" and self.scale > self.off

    @property
    def branches(self) -> int:
        """How often the model's blocks see an image in each step."""
        return 2 if self.on else 1

    @property
    def is_linear(self) -> bool:
        """Whether the guided prediction is a sum of both branches', each with a fixed weight."""
        return not (self.rescaled or self.most_norm)

    @property
    def rows(self) -> int:
        """How many rows of one call of the model belong to one image."""
        return 2 if self.on and self.layout != "calls" else 1

    @property
    def scales(self) -> list[float]:
        """All numbers that decide what guidance does, for the keys of what was measured under it."""
        return [self.scale] if self.told is None else [self.scale, self.told]

    def at(self, scale: float) -> Guidance:
        """The same pipeline at another scale."""
        return replace(self, scale=scale)

    def halves(self, batch: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The conditional and the null half [B, ...] of a call's rows [2 B, ...]; the batch twice where it has one branch."""
        return self.split(batch) if self.rows > 1 else (batch, batch)

    def split(self, both: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The conditional and the null half [B, ...] of both branches [2 B, ...] in the pipeline's order."""
        one, other = both.chunk(2)
        return self.ordered(one, other)

    def ordered(self, one: T, other: T) -> tuple[T, T]:
        """From the pipeline's order to (conditional, null), and back."""
        return (other, one) if self.layout == "null first" else (one, other)

    def chosen(self, rows: int, *, conditional: bool = True) -> slice:
        """The rows of one branch in a guidance batch of ``rows``; all of them where it has one branch."""
        if self.rows == 1:
            return slice(None)
        first = conditional == (self.layout == "conditional first")
        return slice(None, rows // 2) if first else slice(rows // 2, None)

    def combined(self, conditional: torch.Tensor, null: torch.Tensor, scale: float | torch.Tensor | None = None) -> torch.Tensor:
        """The guided prediction, at this scale or another (a tensor: one a row)."""
        if not self.on:
            return conditional
        s = self.scale if scale is None else scale
        guided = (null if self.base == "null" else conditional) + s * (conditional - null)
        if self.rescaled:
            guided = guided * (conditional.norm(dim=-1, keepdim=True) / guided.norm(dim=-1, keepdim=True))
        if self.most_norm:
            own, most = norms(guided), self.most_norm * norms(conditional)
            guided = guided.where(own <= most, guided * (most / own))
        return guided

    def null_for(self, guided: torch.Tensor, conditional: torch.Tensor) -> torch.Tensor:
        """The null prediction with which ``conditional`` makes ``guided``."""
        difference = (guided - conditional) / (self.scale if self.base == "conditional" else self.scale - 1)
        return conditional - difference


def norms(images: torch.Tensor) -> torch.Tensor:
    """The norm of each image [B, ...], with as many dimensions."""
    found: torch.Tensor = images.flatten(1).norm(dim=1)
    return found.view(-1, *[1] * (images.ndim - 1))
