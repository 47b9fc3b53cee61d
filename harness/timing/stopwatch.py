"""Wall and processor time of one piece of work."""

from __future__ import annotations

import time

import torch

from harness.timing.stages import StageTimer


class Stopwatch:
    """Wall and processor time since it was made; both clocks are read once the device has finished."""

    def __init__(self, device: str) -> None:
        self.timer = StageTimer(device)
        self.single = device == "cpu" and torch.get_num_threads() == 1
        self.wall_s, self.cpu_s = self.timer.now(), time.process_time()

    def read(self) -> tuple[float, float | None]:
        """Seconds of both clocks; processor time only where one thread of a CPU works, since waiting threads burn it too."""
        wall_s = self.timer.now() - self.wall_s
        return wall_s, time.process_time() - self.cpu_s if self.single else None
