"""Whether a pipeline is again what it was: everything of it that a method could leave changed, by name."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from time import perf_counter
from typing import Any

import torch
from torch import nn

from harness.sampling.pipeline import Pipeline

SHARE = 0.01  # of the time that a method was attached, for reading what its weights hold
WHOLE = 4  # tensors are always read, whatever the time
INTEGERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
PLAIN = (bool, int, float, str, bytes, tuple, type(None))  # compared by value; everything else must be the same object


class Restoration:
    """A pipeline as it was, to be compared with after each method: whoever leaves it changed spoils the rows of others.

    Every attribute, hook, forward and tensor is compared by identity, and each tensor's version, which in-place operations raise.
    What goes behind the version's back (``.data``) is found by checksums on the device. They take at most :data:`SHARE` of the
    time that the method was attached, so of a large model in a short time only some tensors are read, others each time.
    """

    def __init__(self, pipeline: Pipeline) -> None:
        self.pipeline = pipeline
        pipeline.residency.enter("denoise")  # sums are compared where they were made
        self.state = state_of(pipeline)
        self.tensors = dict(_tensors(pipeline))
        self.versions = {name: _version(tensor) for name, tensor in self.tensors.items()}
        start = perf_counter()
        self.sums = dict(zip(map(self._place, self.tensors), checksums(self.tensors.values()), strict=True))
        self.seconds = perf_counter() - start
        self.next = 0

    def faults(self, attached_s: float) -> list[str]:
        """What is other than it was, by name; ``attached_s`` are the seconds that a method was attached."""
        self.pipeline.residency.enter("denoise")
        found = changed(self.state, state_of(self.pipeline))
        found += [f"{name} was written to" for name, tensor in self.tensors.items() if _version(tensor) != self.versions[name]]
        names = self._chosen(attached_s)
        sums = zip(names, checksums(self.tensors[name] for name in names), strict=True)
        return found + [
            f"{name} holds other numbers" for name, one in sums if one != self.sums.setdefault(self._place(name), one)
        ]

    def _place(self, name: str) -> tuple[str, str]:
        """A tensor and the kind of device that it lies on now: checksums of two kinds do not compare."""
        return name, self.tensors[name].device.type

    def _chosen(self, attached_s: float) -> list[str]:
        """The tensors that there is time to read, in turn."""
        names = list(self.tensors)
        count = int(len(names) * min(1.0, SHARE * attached_s / max(self.seconds, 1e-9)))
        chosen = [names[(self.next + i) % len(names)] for i in range(min(len(names), max(WHOLE, count)))]
        self.next += len(chosen)
        return chosen


def leak_reason(faults: Sequence[str]) -> str:
    """Why a method that left the pipeline changed has no row."""
    more = f", and {len(faults) - 1} more" if len(faults) > 1 else ""
    return f"it left the pipeline changed: {faults[0]}{more}; the pipeline was loaded again for the next method"


def checksums(tensors: Iterable[torch.Tensor]) -> list[int]:
    """One number for each tensor, computed where it lies: it differs where any bit does, or where rows are exchanged.

    0 for a tensor whose memory cannot be read as integers.
    """
    sums = [_checksum(tensor.detach()) for tensor in tensors]
    return [int(total) for total in sums]  # waits for the device once all are under way


def _checksum(tensor: torch.Tensor) -> torch.Tensor | int:
    if type(tensor) is not torch.Tensor or tensor.numel() == 0 or tensor.element_size() not in INTEGERS:
        return 0
    numbers = tensor.contiguous().view(INTEGERS[tensor.element_size()])
    if tensor.device.type == "cpu":
        return zlib.crc32(numbers.numpy().data)
    return device_checksum(numbers)


def device_checksum(numbers: torch.Tensor) -> torch.Tensor:
    """The sum of all rows' sums, each times its number from 1 on, modulo 2^64: one pass over the memory."""
    rows = numbers.reshape(-1, numbers.shape[-1] if numbers.ndim else 1).sum(-1, dtype=torch.int64)
    return (rows * torch.arange(1, len(rows) + 1, device=rows.device)).sum()


def _version(tensor: torch.Tensor) -> int:
    return 0 if tensor.is_inference() else tensor._version


def _tensors(pipeline: Pipeline) -> Iterator[tuple[str, torch.Tensor]]:
    for part, network in _networks(pipeline):
        yield from ((f"{part}.{name}", tensor) for name, tensor in network.named_parameters())
        yield from ((f"{part}.{name}", tensor) for name, tensor in network.named_buffers())


def state_of(pipeline: Pipeline) -> dict[str, object]:
    """Forwards, hooks, attributes, parameters and buffers of every module, their classes, the scheduler, the settings, and
    what torch would compute otherwise with. The objects themselves are held, so that no new one can take an old one's place.

    What each call changes anyway (a scheduler's history, the clock) is left out, and so is what tensors contain.
    """
    modules = {f"{name}.{path}".rstrip("."): m for name, part in _networks(pipeline) for path, m in part.named_modules()}
    found: dict[str, object] = {}
    for path, module in modules.items():
        found |= dict(_attributes(path, module))
    kinds = {type(module) for module in modules.values()} | {type(pipeline.pipe), type(pipeline.pipe.scheduler)}
    for kind in kinds:
        found |= {f"class {kind.__module__}.{kind.__qualname__}.{name}": value for name, value in vars(kind).items()}
    scheduler = pipeline.pipe.scheduler
    hiding = (name for name, value in vars(scheduler).items() if callable(value) or hasattr(type(scheduler), name))
    found |= {"scheduler": scheduler, "scheduler's config": getattr(scheduler, "config", None)}
    found["scheduler's replaced methods"] = tuple(sorted(hiding))  # solvers make other attributes when they are first used
    found |= {f"pipeline.{name}": value for name, value in vars(pipeline).items()}
    found |= {f"pipe.{name}": value for name, value in vars(pipeline.pipe).items() if not name.startswith("_")}
    return found | _torch_settings()


def changed(before: Mapping[str, object], after: Mapping[str, object]) -> list[str]:
    """What appeared, disappeared or is another, by name."""
    names = list(dict.fromkeys([*before, *after]))
    words = {name: _difference(name, before, after) for name in names}
    return [f"{name} {word}" for name, word in words.items() if word]


def _difference(name: str, before: Mapping[str, object], after: Mapping[str, object]) -> str:
    if name not in before:
        return "appeared"
    if name not in after:
        return "disappeared"
    a, b = before[name], after[name]
    same = a is b or (isinstance(a, PLAIN) and type(a) is type(b) and a == b)
    return "" if same else "is another"


def _networks(pipeline: Pipeline) -> Iterator[tuple[str, nn.Module]]:
    for name, part in pipeline.pipe.components.items():
        if isinstance(part, nn.Module):
            yield name, part


def _attributes(path: str, module: nn.Module) -> Iterator[tuple[str, object]]:
    """Attributes by path; parameters, buffers, submodules and hooks, which lie in dictionaries, one by one."""
    for name, value in vars(module).items():
        if isinstance(value, dict):
            yield from ((f"{path}.{name}[{key!r}]", each) for key, each in value.items())
        else:
            yield f"{path}.{name}", _snapshot(value)


def _snapshot(value: object) -> object:
    """A list of plain values as a tuple of them: an autoencoder makes new lists at every call, and a list can change in place."""
    plain = isinstance(value, list) and all(isinstance(item, PLAIN) for item in value)
    return ("list", *value) if plain else value  # type: ignore[misc]


def _torch_settings() -> dict[str, Any]:
    return {
        "torch's default dtype": str(torch.get_default_dtype()),
        "torch's threads": torch.get_num_threads(),
        "torch's matmul precision": torch.get_float32_matmul_precision(),
        "torch's gradients": torch.is_grad_enabled(),
        "torch's deterministic algorithms": torch.are_deterministic_algorithms_enabled(),
        "torch.backends.cudnn.benchmark": torch.backends.cudnn.benchmark,
        "scaled_dot_product_attention": nn.functional.scaled_dot_product_attention,
    }
