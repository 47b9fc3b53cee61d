"""The simulator itself: it computes what the CPU computes, refuses what CUDA refuses, and counts what makes the host wait."""

from __future__ import annotations

import copy
import io
from collections.abc import Callable

import pytest
import torch
from torch.nn import functional

from tests.simulated_cuda.device import SimulatedCuda


def waits(device: SimulatedCuda, work: Callable[[], object]) -> list[str]:
    device.forget()
    work()
    return sorted(wait.why for wait in device.waits.elements())


def test_numbers_views_and_gradients_are_the_cpus() -> None:
    x, layer = torch.randn(3, 4), torch.nn.Linear(4, 5)
    twin = copy.deepcopy(layer).to("cuda")
    there = x.to("cuda")
    assert there.device == torch.device("cuda", 0) and type(there) is torch.Tensor
    layer(x).square().sum().backward()
    twin(there).square().sum().backward()
    assert torch.equal(layer.weight.grad, twin.weight.grad.cpu()) and twin.weight.grad.is_cuda
    there[1].zero_()
    there.view(2, 6)[0, 0] = 7
    assert there.cpu()[1].tolist() == [0.0] * 4 and there.cpu()[0, 0] == 7, "views share their base's memory"
    with torch.inference_mode():
        assert (there * 2).is_inference() and torch.equal((there * 2).cpu(), there.cpu() * 2)


def test_autocast_has_cudas_lists() -> None:
    layer, x = torch.nn.Linear(4, 4).to("cuda"), torch.randn(2, 4, device="cuda")
    with torch.autocast("cuda", torch.bfloat16):
        low = layer(x)
        assert low.dtype == torch.bfloat16 and functional.layer_norm(low, (4,)).dtype == torch.float32
    with torch.autocast("cpu", torch.bfloat16):
        assert functional.layer_norm(low.cpu(), (4,)).dtype == torch.bfloat16, "the CPU's lists differ"


@pytest.mark.parametrize(
    ("work", "match"),
    [
        (lambda x: x + torch.ones(3, 4), "two devices, cuda:0 and cpu"),
        (lambda x: x + x.to("cuda:1"), "two devices, cuda:0 and cuda:1"),
        (lambda x: torch.cat([x, torch.ones(1, 4)]), "two devices"),
        (lambda x: x @ torch.ones(4, 4), "two devices"),
        (lambda x: x.numpy(), "can't convert cuda:0"),
        (lambda x: torch.ones(3)[torch.tensor([0], device="cuda")], "indices should be either on cpu"),
        (lambda x: torch.randn(3, generator=torch.Generator(), device="cuda"), "'cuda' device type for generator"),
        (lambda x: x.int() @ x.int().t(), "not implemented for 'Int'"),
        (lambda x: torch._int_mm(x.char(), x.char().t()), "greater than 16"),
    ],
)
def test_what_cuda_refuses(work: Callable[[torch.Tensor], object], match: str) -> None:
    with pytest.raises((RuntimeError, TypeError), match=match):
        work(torch.ones(3, 4, device="cuda"))


def test_a_scalar_of_the_host_is_taken_as_cuda_takes_it() -> None:
    x = torch.ones(3, 4, device="cuda")
    assert (x + torch.tensor(2.0)).sum().item() == 36 and torch.where(x > 0, x, torch.tensor(0.0)).is_cuda
    with pytest.raises(RuntimeError, match="two devices"):
        torch.addmm(torch.tensor(1.0), x, x.t())


def test_what_makes_the_host_wait(device: SimulatedCuda) -> None:
    x = torch.ones(3, 4, device="cuda")
    assert waits(device, lambda: (x * 2 + torch.full((4,), 1.0, device="cuda"))[1:].sum()) == []
    assert waits(device, lambda: float(x.sum())) == ["_local_scalar_dense"]
    assert waits(device, lambda: x[x > 0]) == ["nonzero"]
    assert waits(device, lambda: x[torch.tensor([0])]) == ["copy from the host"]
    assert waits(device, lambda: x.index_put_((torch.tensor([0]),), x[1].clone())) == ["copy from the host"]
    assert waits(device, lambda: torch.ones(3).to("cuda")) == ["copy from the host"]
    assert waits(device, lambda: torch.ones(3).pin_memory().to("cuda", non_blocking=True)) == []
    assert waits(device, lambda: x.cpu()) == ["copy to the host"]
    assert waits(device, lambda: torch.cuda.synchronize()) == ["synchronize"]


def test_a_copy_that_does_not_block_arrives_when_the_host_waits() -> None:
    x = torch.arange(6.0, device="cuda")
    early, event = x.to("cpu", non_blocking=True), torch.cuda.Event()
    event.record()
    x.zero_()
    assert early.is_pinned() and not torch.equal(early, torch.arange(6.0)), "read too early, it is not there"
    later = x.to("cpu", non_blocking=True)
    event.synchronize()
    assert torch.equal(early, torch.arange(6.0)), "the stream's order holds: copied before it was overwritten"
    assert not torch.equal(later, torch.zeros(6)), "an event waits for what came before it, and for no more"


def test_memory_is_counted_and_bounded(device: SimulatedCuda) -> None:
    before = device.allocated()
    x = torch.empty(2**20, device="cuda")
    assert device.allocated() - before == 4 * 2**20 == device.allocated() - before + device.allocated(1)
    y = x.view(2, -1)
    del x
    assert device.allocated() - before == 4 * 2**20, "a view keeps the memory"
    with device.memory(2**20), pytest.raises(torch.OutOfMemoryError, match="CUDA out of memory"):
        y * 2
    torch.cuda.reset_peak_memory_stats()
    del y
    assert device.allocated() == before and torch.cuda.max_memory_allocated() - before == 4 * 2**20


def test_states_are_saved_and_loaded() -> None:
    file = io.BytesIO()
    torch.save({"weight": torch.arange(3.0, device="cuda:1")}, file)
    for where in ("cpu", "cuda:0"):
        file.seek(0)
        loaded = torch.load(file, map_location=where)["weight"]
        assert loaded.device == torch.device(where) and loaded.tolist() == [0.0, 1.0, 2.0]


def test_the_current_device_is_where_new_tensors_lie(device: SimulatedCuda) -> None:
    torch.cuda.set_device(1)
    assert torch.empty(1, device="cuda").device.index == 1 == torch.cuda.current_device()
