"""The coefficients of a learned solver (Shaul et al. 2024, arXiv 2403.01329)."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from math import isfinite
from typing import Any

from harness.errors import ArtifactError

LEARNED = "bespoke"  # a plan's solver, where it is a learned one


@dataclass(frozen=True)
class SolverTable:
    """A solver for one step count n; all tuples have n entries.

    With x0_i the clean image predicted at step i and d_i the guidance difference there (conditional less null clean image),

        D_i = x0_i + sum over k <= i of guidance[i][k] * d_k
        x_{i+1} = keep[i] * x_i + sum over j <= i of clean[i][j] * D_j

    where x0_i has the pipeline's guidance already. ``timesteps`` are whole, high to low; x_n is the image. The paper learns
    ``timesteps``, ``keep`` and ``clean``; ``guidance``, with which early steps can lean on other guidance scales, is ours.
    """

    timesteps: tuple[int, ...]
    keep: tuple[float, ...]
    clean: tuple[tuple[float, ...], ...]
    guidance: tuple[tuple[float, ...], ...]

    def __post_init__(self) -> None:
        steps = range(len(self.timesteps))
        descending = all(a > b for a, b in zip(self.timesteps, self.timesteps[1:], strict=False))
        shaped = len(self.keep) == len(steps) and all(
            [len(row) for row in rows] == [i + 1 for i in steps] for rows in (self.clean, self.guidance)
        )
        numbers = [*self.keep, *(x for rows in (self.clean, self.guidance) for row in rows for x in row)]
        if not steps or not descending or self.timesteps[-1] < 0 or not shaped or not all(map(isfinite, numbers)):
            raise ArtifactError(
                expected="a solver's table: falling timesteps, and finite coefficients for each step before and at a step",
                got=f"timesteps {self.timesteps}",
                remedy="restore or retrain it",
            )

    @classmethod
    def read(cls, content: Any) -> SolverTable:
        """From JSON. Raises :class:`ArtifactError` on anything but a table."""
        try:
            rows = [tuple(tuple(float(x) for x in row) for row in content[name]) for name in ("clean", "guidance")]
            return cls(tuple(int(t) for t in content["timesteps"]), tuple(float(x) for x in content["keep"]), *rows)
        except (KeyError, TypeError, ValueError) as error:
            raise ArtifactError(expected="a solver's table", got=repr(error), remedy="restore or retrain it") from error

    def content(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)
