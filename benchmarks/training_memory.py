"""What one step of training a feedback module allocates on a GPU, found without one: ``python -m benchmarks.training_memory``

The training's own code runs, backward too, on torch's meta device, where tensors have shapes and no memory, and the bytes that
are alive at the same time are counted. Attention is counted as fused. Weights, the module with its moving average, gradient and
AdamW's two moments are added. Autocast is not: float32 weights are counted as computing in float32, which is an upper bound.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch
from torch import nn

from harness.config.spec import ExperimentSpec, load_spec
from harness.cost.memory import gib
from harness.models.empty import empty_pipeline
from harness.models.families.base import named
from harness.models.loading import quiet_libraries
from harness.sampling.patching import patched
from harness.sampling.pipeline import Pipeline
from harness.sampling.rehearsal import Allocations, component_bytes, unmasked
from ilf.loop import InnerLoop
from ilf.objective import Objective
from ilf.settings import IlfSettings
from ilf.train import build_module, checkpointed
from ilf.transitions import Transitions

PRESETS = ("dit-xl-256", "pixart-alpha-512", "pixart-alpha-1024")
PUBLISHED_T5 = 4.76e9  # parameters of the T5 XXL encoder, of which random pipelines have two layers of 24
COPIES = 4  # of the module's parameters: moving average, gradient, and AdamW's two moments


@dataclass(frozen=True)
class TrainingMemory:
    """Bytes of a pipeline's components, of the module with its optimiser, and what a step allocates at most beside them."""

    weights: Mapping[str, int]
    module: int
    step: int

    @property
    def peak(self) -> int:
        """All of it."""
        return sum(self.weights.values()) + self.module + self.step


class _Fused(torch.autograd.Function):
    """Attention that keeps its arguments and its result for the backward pass, and no scores."""

    @staticmethod
    def forward(ctx: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        output = query.new_empty((*query.shape[:-1], value.shape[-1]))
        ctx.save_for_backward(query, key, value, output)
        return output

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return tuple(torch.empty_like(tensor) for tensor in ctx.saved_tensors[:3])


class _Called(Exception):
    """The denoiser's arguments are known."""


def predict_step(spec: ExperimentSpec, prompt: str) -> TrainingMemory:
    """One optimiser step of the spec's training, on transitions; the teacher's sampling takes less."""
    pipeline = empty_pipeline(spec)
    geometry = pipeline.geometry
    settings = IlfSettings.of(spec.training, spec.task).resolved(geometry.depth, geometry.state_values)
    module = build_module(pipeline, settings).to("meta", next(pipeline.transformer.parameters()).dtype)
    pipeline.transformer.requires_grad_(False)
    told = _told(pipeline, prompt, settings.batch)
    data: Any = SimpleNamespace(rows=lambda index: told, null=pipeline.guidance.rows > 1)
    loop, seen = InnerLoop(pipeline.transformer, pipeline.family, module), Allocations()
    objective = Objective(pipeline, loop, data, settings.target, settings.teacher_steps)
    lean = checkpointed(pipeline.blocks) if settings.gradient_checkpointing else nullcontext()
    with _differentiable_attention(), lean, seen:
        transitions = _transitions(pipeline, settings.batch)
        with loop.hooked():
            objective(transitions, torch.Generator()).backward()  # type: ignore[no-untyped-call]
    parameters = sum(p.numel() * p.element_size() for p in module.parameters())
    return TrainingMemory(component_bytes(pipeline.pipe), (1 + COPIES) * parameters, seen.peak)


def _told(pipeline: Pipeline, prompt: str, batch: int) -> dict[str, Any]:
    """What the denoiser is told beside sample and time, for so many rows."""
    seen: dict[str, Any] = {}

    def called(*args: Any, **kwargs: Any) -> Any:
        seen.update(named(pipeline.transformer, args, kwargs))
        raise _Called

    with unmasked(pipeline.pipe), patched(pipeline.transformer, "forward", called), suppress(_Called):
        pipeline.generate([prompt], 0, range(1))
    io = pipeline.family.call
    return {key: _rows(value, batch) for key, value in seen.items() if key not in (io.sample, io.timestep, "return_dict")}


def _rows(value: Any, batch: int) -> Any:
    if isinstance(value, dict):
        return {key: _rows(each, batch) for key, each in value.items()}
    return value.new_empty((batch, *value.shape[1:])) if isinstance(value, torch.Tensor) else value


def _transitions(pipeline: Pipeline, batch: int) -> Transitions:
    geometry, dtype = pipeline.geometry, next(pipeline.transformer.parameters()).dtype

    def made(*shape: int, dtype: torch.dtype = dtype) -> torch.Tensor:
        return torch.empty((batch, *shape), dtype=dtype, device="meta")

    before, now, after = (made(dtype=torch.long) for _ in range(3))
    sample, previous, clean, target, null_eps = (made(*geometry.latent) for _ in range(5))
    entered, left, null = (made(geometry.stream_tokens, geometry.width, dtype=torch.bfloat16) for _ in range(3))
    rows, distilled, guidance = torch.zeros(batch, dtype=torch.long), made(dtype=torch.bool), made()
    streams = (entered, left, null, null_eps, guidance)
    return Transitions(rows, now, after, before, distilled, sample, previous, clean, target, *streams)


@contextmanager
def _differentiable_attention() -> Iterator[None]:
    def fused(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        return _Fused.apply(query, key, value)  # type: ignore[no-untyped-call]

    with patched(nn.functional, "scaled_dot_product_attention", fused):
        yield


def with_published_encoder(found: TrainingMemory, itemsize: int) -> int:
    """The peak with all layers of T5 XXL, where there is a text encoder."""
    cut = found.weights.get("text_encoder")
    return found.peak if cut is None else found.peak - cut + int(PUBLISHED_T5 * itemsize)


def main(presets: Sequence[str] = PRESETS) -> None:
    """Print a row for each preset and dtype of the weights."""
    quiet_libraries()
    heads = ("preset", "weights", "batch", "one step", "module and optimiser", "components", "all", "with T5 XXL whole")
    print(f"| {' | '.join(heads)} |\n{'|---' * len(heads)}|")
    for name in presets:
        for dtype in ("float32", "bfloat16"):
            random = {"dit-xl-256": "dit-xl-2-256"}.get(name, name)
            spec = load_spec(name, {"pipeline": f"random:{random}", "dtype": dtype})
            found = predict_step(spec, "207" if spec.task == "class" else "a cat")
            batch = IlfSettings.of(spec.training, spec.task).batch
            parts = (found.step, found.module, sum(found.weights.values()), found.peak)
            whole = with_published_encoder(found, getattr(torch, dtype).itemsize)
            cells = [name, dtype, str(batch), *map(gib, parts), gib(whole)]
            print(f"| {' | '.join(cells)} |")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("presets", nargs="*", default=PRESETS)
    main(parser.parse_args().presets)
