"""Which denoising step is running, told by the scheduler itself."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any

from harness.sampling.patching import patched


class StepClock:
    """Follows a diffusers scheduler: ``step`` counts from 0, ``timesteps`` are this call's, high to low.

    ``is_second_pass`` is True while blocks run a second time within a step: what caches keep and recall is the first time's.
    """

    def __init__(self) -> None:
        self.step, self.is_second_pass = 0, False
        self.timesteps: tuple[float, ...] = ()

    @property
    def t(self) -> float:
        """The present timestep, 999 (noise) to 0 (image)."""
        return self.timesteps[self.step]

    @property
    def t_next(self) -> float:
        """The timestep that this step lands on; -1, the clean image, after the last."""
        return self.timesteps[self.step + 1] if self.step + 1 < len(self.timesteps) else -1.0

    @contextmanager
    def following(self, scheduler: Any) -> Iterator[None]:
        """Count the steps of ``scheduler`` inside the context; every ``set_timesteps`` starts again from 0."""
        set_timesteps, step = scheduler.set_timesteps, scheduler.step

        def counted_set(*args: Any, **kwargs: Any) -> Any:
            result = set_timesteps(*args, **kwargs)
            self.timesteps, self.step = tuple(scheduler.timesteps.tolist()), 0
            return result

        @wraps(step)  # a pipeline looks at the signature before it passes a generator to a stochastic scheduler
        def counted_step(*args: Any, **kwargs: Any) -> Any:
            result = step(*args, **kwargs)
            self.step += 1
            return result

        with patched(scheduler, "set_timesteps", counted_set), patched(scheduler, "step", counted_step):
            yield
