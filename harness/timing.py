"""Interleaved timing: every method once a round, so that drift hits all of them alike."""

from __future__ import annotations

import contextlib
import resource
from collections.abc import Sequence
from pathlib import Path

import torch

from harness.contracts import Method, TimingSample
from harness.pipeline import Pipeline
from harness.stages import StageTimer

CLEAR_REFS = Path("/proc/self/clear_refs")


def reset_peak_memory(device: str) -> None:
    """Start a new peak: the CUDA allocator's, or (on Linux) this process's resident set."""
    if device.startswith("cuda"):
        torch.cuda.reset_peak_memory_stats()
        return
    with contextlib.suppress(OSError):
        CLEAR_REFS.write_text("5")


def peak_memory_bytes(device: str) -> int:
    """The peak since :func:`reset_peak_memory`; where the system cannot reset it, since the process began."""
    if device.startswith("cuda"):
        return torch.cuda.max_memory_allocated()
    with contextlib.suppress(OSError, StopIteration):
        line = next(s for s in Path("/proc/self/status").read_text().splitlines() if s.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def time_once(pipeline: Pipeline, method: Method, label: str, prompts: Sequence[str], seed: int, number: int) -> TimingSample:
    """One timed batch, attaching outside the clock."""
    timer = StageTimer(pipeline.device)
    with method.attach(pipeline):
        reset_peak_memory(pipeline.device)
        start = timer.now()
        with timer.timing(pipeline.pipe):
            pipeline.generate(prompts, seed, range(len(prompts)))
        latency = timer.now() - start
    return TimingSample(
        label, number, len(prompts), latency, timer.text_s, timer.denoise_s, timer.decode_s, peak_memory_bytes(pipeline.device)
    )


def in_round(labels: Sequence[str], number: int) -> list[str]:
    """The order of a round: every second one runs in reverse, so that no method always follows the same one."""
    return list(reversed(labels)) if number % 2 else list(labels)
