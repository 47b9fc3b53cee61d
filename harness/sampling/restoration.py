"""Whether a pipeline is again what it was: everything of it that a method could leave changed, by name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import nn

from harness.sampling.pipeline import Pipeline

PLAIN = (bool, int, float, str, bytes, tuple, type(None))  # compared by value; everything else must be the same object


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
        found |= {f"class {kind.__name__}.{name}": value for name, value in vars(kind).items()}
    scheduler = pipeline.pipe.scheduler
    found |= {"scheduler": scheduler, "scheduler's attributes": tuple(sorted(vars(scheduler)))}
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
            yield f"{path}.{name}", value


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
