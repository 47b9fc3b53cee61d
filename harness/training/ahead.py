"""The batch of the next step, gathered while the device works on the present one."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

import torch

T = TypeVar("T")


class Ahead(Generic[T]):
    """Gathers what a step needs from the host's memory: for a GPU one step ahead, in a thread; for a CPU when it is asked for.

    ``draw`` gives the indices int64 [n] of a step's batch, the same however often it is asked, and ``gather`` the batch. What was
    gathered for other indices than are then asked for is dropped, and so is what was gathered before :meth:`forget`.
    """

    def __init__(self, device: str, draw: Callable[[int], torch.Tensor], gather: Callable[[torch.Tensor], T]) -> None:
        self.draw, self.gather = draw, gather
        self.pool = ThreadPoolExecutor(1, thread_name_prefix="batches") if device.startswith("cuda") else None
        self.begun: tuple[torch.Tensor, Future[T]] | None = None

    def take(self, step: int, index: torch.Tensor) -> T:
        """The batch of ``index``, which step ``step`` has drawn; the next step's is begun."""
        begun, self.begun = self.begun, None
        batch = begun[1].result() if begun is not None and torch.equal(begun[0], index) else self.gather(index)
        if self.pool is not None:
            following = self.draw(step + 1)
            self.begun = following, self.pool.submit(self.gather, following)
        return batch

    def forget(self) -> None:
        """What the indices mean has changed."""
        if self.begun is not None:
            self.begun[1].cancel()
        self.begun = None

    def close(self) -> None:
        """Nothing more is asked for."""
        self.forget()
        if self.pool is not None:
            self.pool.shutdown(wait=True, cancel_futures=True)
