"""Which errors are outcomes, which stop the run, and which break the process."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from harness.errors import DeviceLost
from harness.execution.tasks import Task, TaskResult, attempt, is_out_of_memory


class Failing:
    def __init__(self, error: Exception) -> None:
        self.error = error

    def do(self, task: Task) -> TaskResult:
        raise self.error

    def close(self) -> None: ...


TASK = Task("generate", "full", 0, 4, 4)


@pytest.mark.parametrize(
    "text",
    [
        "CUDA error: an illegal memory access was encountered",
        "CUDA error: device-side assert triggered\nCompile with TORCH_USE_CUDA_DSA",
        "CUDA error: unspecified launch failure",
        "CUDA error: uncorrectable ECC error encountered",
    ],
)
def test_a_broken_context_is_no_methods_failure(text: str) -> None:
    with pytest.raises(DeviceLost, match="a new process goes on") as caught:
        attempt(Failing(RuntimeError(text)), TASK)
    assert caught.value.exit_code == 74 and "generate full" in str(caught.value)


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("CUDA error: invalid argument"),
        RuntimeError("CUDA error: no kernel image is available for execution on the device"),
        ValueError("a device-side assert that only its text has"),
        torch.OutOfMemoryError("CUDA out of memory."),
    ],
)
def test_others_are_outcomes(error: Exception) -> None:
    outcome: Any = attempt(Failing(error), TASK).result()
    assert outcome.error and outcome.loss is None


@pytest.mark.parametrize(
    ("error", "short"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9.00 GiB."), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), True),
        (RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), True),
        (RuntimeError("CUDA error: invalid argument"), False),
    ],
)
def test_what_says_that_memory_ran_out(error: Exception, short: bool) -> None:
    assert is_out_of_memory(error) is short
