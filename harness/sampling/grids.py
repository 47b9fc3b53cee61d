"""Grids of timesteps."""

from __future__ import annotations

from harness.errors import UsageError

NOISE = 999  # the timestep from which learned schedules start


def power_grid(steps: int, power: float, train_timesteps: int = 1000, shift: float | None = None) -> tuple[int, ...]:
    """Timesteps T (1 - i / steps)^power - 1 for i = 0 .. steps - 1, high to low.

    Power 1 is trailing spacing; above 1 they stand closer together towards the clean image. From the first step down to 0,
    no timestep comes twice. With flow matching, T u with u = (1 - i / steps)^power shifted to shift u / (1 + (shift - 1) u), down
    to 1. Raises :class:`UsageError` where there are more steps than timesteps or ``power`` is not positive.

    >>> power_grid(5, 1.0)
    (999, 799, 599, 399, 199)
    >>> power_grid(5, 1.5)
    (999, 715, 464, 252, 88)
    """
    if not 1 <= steps <= train_timesteps or not 0 < power < 10:
        raise UsageError(
            expected=f"1 to {train_timesteps} steps and a power between 0 and 10",
            got=f"{steps} steps, power {power}",
            remedy="for example spacing:power=1.5",
        )
    shares = [(1 - i / steps) ** power for i in range(steps)]
    if shift is not None:
        shares = [shift * u / (1 + (shift - 1) * u) for u in shares]
    lowest = 0 if shift is None else 1
    grid = [round(train_timesteps * u) - 1 + lowest for u in shares]
    for i in range(steps - 1, -1, -1):  # rounding may not let two steps fall together
        grid[i] = max(grid[i], lowest if i == steps - 1 else grid[i + 1] + 1)
    return tuple(grid)


def whole_grid(steps: int, power: float, shift: float | None = None) -> tuple[int, ...]:
    """:func:`power_grid` from 999 down, with betas as with flow matching: what is learned for a model tells timesteps so.

    >>> whole_grid(4, 1.0, shift=3.0)
    (999, 900, 750, 500)
    """
    first, *others = power_grid(steps, power, shift=shift)
    return min(first, NOISE), *others
