"""Which denoising step is running, told by the scheduler itself."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any

import torch

from harness.sampling.patching import patched
from harness.sampling.transfer import to_device


class StepClock:
    """Follows a diffusers scheduler: ``step`` counts from 0, ``timesteps`` are this call's, high to low.

    ``call`` counts the transformer's calls within a step, from 0: the guidance branches of a pipeline that runs them one after
    the other. ``is_second_pass`` is True while blocks run a second time within a step: what caches keep and recall is the first
    time's.
    """

    def __init__(self) -> None:
        self.step, self.call, self.is_second_pass = 0, 0, False
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
    def following(self, scheduler: Any, device: str = "cpu") -> Iterator[None]:
        """Count the steps of ``scheduler`` inside the context; every ``set_timesteps`` starts again from 0.

        The pipeline gets its timesteps on ``device``. The scheduler keeps them on the host, where it reads them: a value that
        it had to fetch from a GPU would stop the host at every step.
        """
        set_timesteps, step = scheduler.set_timesteps, scheduler.step
        on_host: list[torch.Tensor] = []

        @wraps(set_timesteps)  # a pipeline looks at the signature before it passes sigmas
        def counted_set(*args: Any, device: Any = None, **kwargs: Any) -> Any:
            result = set_timesteps(*args, **kwargs)
            on_host[:] = [scheduler.timesteps]
            self.timesteps, self.step, self.call = tuple(scheduler.timesteps.tolist()), 0, 0
            scheduler.timesteps = to_device(scheduler.timesteps, followed)
            return result

        @wraps(step)  # a pipeline looks at the signature before it passes a generator to a stochastic scheduler
        def counted_step(output: Any, timestep: Any, *args: Any, **kwargs: Any) -> Any:
            (known,) = on_host
            with patched(scheduler, "timesteps", known):
                result = step(output, known[self.step], *args, **kwargs)
            self.step, self.call = self.step + 1, 0
            return result

        followed = device
        with patched(scheduler, "set_timesteps", counted_set), patched(scheduler, "step", counted_step):
            yield

    @contextmanager
    def counting_calls(self, transformer: Any) -> Iterator[None]:
        """Count the calls of ``transformer`` inside the context. Enter it after whatever else changes the transformer."""
        forward = transformer.forward

        def counted(*args: Any, **kwargs: Any) -> Any:
            output = forward(*args, **kwargs)
            self.call += 1
            return output

        with patched(transformer, "forward", counted):
            yield
