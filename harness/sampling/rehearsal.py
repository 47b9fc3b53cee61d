"""What a pipeline allocates, found without a device: its own code runs on tensors that have shapes and no memory.

The pipeline lies on torch's meta device. Attention is counted as fused, as GPUs compute it; what a kernel needs as a workspace,
and what the allocator loses between blocks, is not counted.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from typing import Any

import torch
import transformers.masking_utils
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from harness.contracts import Method
from harness.cost.memory import Footprint
from harness.sampling.encoded import text_encoders
from harness.sampling.images import still
from harness.sampling.patching import patched
from harness.sampling.pipeline import Pipeline

BLOCK = 512  # bytes that CUDA's allocator rounds every tensor up to
CALLS = 6  # of the transformer that a method's state is watched for


def rounded(size: int) -> int:
    """What a tensor of so many bytes takes."""
    return -(-size // BLOCK) * BLOCK


class Allocations(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the bytes of all meta tensors that are made inside the context, and those of them that are alive."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = self.peak = 0
        self.alive: dict[int, int] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, torch.Tensor) and leaf.is_meta:
                self._see(leaf.untyped_storage())
        return result

    def _see(self, storage: torch.UntypedStorage) -> None:
        key = storage._cdata
        if key in self.alive:
            return
        self.alive[key] = rounded(storage.nbytes())
        self.now += self.alive[key]
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._gone, key)

    def _gone(self, key: int) -> None:
        self.now -= self.alive.pop(key)

    def stage(self) -> int:
        """The most since the last stage ended."""
        most, self.peak = self.peak, self.now
        return most


class _Ended(Exception):
    """Enough has been seen."""


def component_bytes(pipe: Any) -> dict[str, int]:
    """What the weights and buffers of each component take, by name."""
    parts = {name: part for name, part in pipe.components.items() if isinstance(part, nn.Module)}
    tensors = {name: (*part.parameters(), *part.buffers()) for name, part in parts.items()}
    return {name: sum(rounded(t.numel() * t.element_size()) for t in some) for name, some in tensors.items()}


def rehearse(
    pipeline: Pipeline, prompts: Sequence[str], full: Footprint | None = None, method: Method | None = None
) -> Footprint:
    """What the plain run allocates, or a ``method`` beside ``full``, of which only the first calls of the transformer are seen.

    ``pipeline`` lies on the meta device. Raises whatever its code raises where it reads a number of a tensor.
    """
    seen, found = Allocations(), dict[str, int]()
    told = nullcontext() if method is None else method.attach(pipeline)
    length = pipeline.sampling(steps=2) if method is None else nullcontext()
    with ExitStack() as stack:
        stack.enter_context(_fused_attention())
        stack.enter_context(unmasked(pipeline.pipe))
        stack.enter_context(pipeline.family.without_numbers(pipeline))
        stack.enter_context(_stages(pipeline, seen, found, CALLS if method else 0))
        stack.enter_context(seen)
        stack.enter_context(told)
        stack.enter_context(length)
        with suppress(_Ended):
            pipeline.generate(list(prompts), 0, range(len(prompts)))
        held = seen.now
        found.setdefault("denoise", seen.peak)
    if full is not None:
        found["decode"] = full.activations["decode"] + max(0, held - full.held)
    found = {"text": 0, **found}
    return Footprint(len(prompts), component_bytes(pipeline.pipe), found, held)


@contextmanager
def _stages(pipeline: Pipeline, seen: Allocations, found: dict[str, int], calls: int) -> Iterator[None]:
    """Note what each stage allocates; end after so many ``calls`` of the transformer, or after decoding."""
    pipe, left = pipeline.pipe, [calls]
    forward, decode, encode = pipe.transformer.forward, pipe.vae.decode, getattr(pipe, "encode_prompt", None)

    def text(*args: Any, **kwargs: Any) -> Any:
        assert encode is not None
        result = encode(*args, **kwargs)
        found["text"] = seen.stage()
        return result

    def denoise(*args: Any, **kwargs: Any) -> Any:
        result = forward(*args, **kwargs)
        left[0] -= 1
        if left[0] == 0:
            raise _Ended
        return result

    def decoded(*args: Any, **kwargs: Any) -> Any:
        found["denoise"] = seen.stage()
        if calls:
            raise _Ended
        kept = decode(*args, **kwargs)
        image = kept[0] if isinstance(kept, tuple) else kept.sample
        pixels = (still(image) / 2 + 0.5).clamp(0, 1).float()
        (pixels * 255).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous()
        found["decode"] = seen.stage()
        raise _Ended

    with ExitStack() as stack:
        if encode is not None:
            stack.enter_context(patched(pipe, "encode_prompt", text))
        stack.enter_context(patched(pipe.transformer, "forward", denoise))
        stack.enter_context(patched(pipe.vae, "decode", decoded))
        yield


@contextmanager
def _fused_attention() -> Iterator[None]:
    def fused(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        return query.new_empty((*query.shape[:-1], value.shape[-1]))

    with patched(nn.functional, "scaled_dot_product_attention", fused):
        yield


@contextmanager
def unmasked(pipe: Any) -> Iterator[None]:
    """Text encoders look whether their mask hides anything, or a row holds several texts, which a tensor without numbers cannot
    say."""
    with ExitStack() as stack:
        stack.enter_context(patched(transformers.masking_utils, "find_packed_sequence_indices", lambda position_ids: None))
        for encoder in text_encoders(pipe).values():
            stack.enter_context(patched(encoder, "forward", _without_mask(encoder.forward)))
        yield


def _without_mask(forward: Callable[..., Any]) -> Callable[..., Any]:
    def unmasked(*args: Any, attention_mask: Any = None, **kwargs: Any) -> Any:
        return forward(*args, **kwargs)

    return unmasked
