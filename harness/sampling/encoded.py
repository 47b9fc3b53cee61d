"""Encoded prompts, kept on the host: a prompt is encoded once in a run, and not once for each method."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.utils._pytree import tree_leaves, tree_map

from harness.sampling.patching import patched
from harness.sampling.transfer import to_device

KEPT_BYTES = 2 * 2**30  # of encoded prompts, at most, on the host of each worker
NO_TEXT = ("transformer", "vae")


def text_encoders(pipe: Any) -> dict[str, nn.Module]:
    """The parts of a pipeline that run before the denoiser does, by name."""
    return {name: part for name, part in pipe.components.items() if isinstance(part, nn.Module) and name not in NO_TEXT}


def prompts_kept(bytes_per_prompt: int) -> int:
    """How many encoded prompts are kept at most."""
    return KEPT_BYTES // max(1, bytes_per_prompt)


class EncodedPrompts:
    """What ``pipe.encode_prompt`` returned, by everything that it was told.

    A batch is kept as it was encoded, so that it comes back bit for bit. What does not fit into ``most`` bytes drives out what
    has not been used for longest. A method that changes a text encoder, or how prompts are encoded, encodes by itself.
    """

    def __init__(self, pipe: Any, most: int | None = None) -> None:
        self.pipe, self.bytes = pipe, 0
        self.most = KEPT_BYTES if most is None else most
        self.kept: OrderedDict[str, Any] = OrderedDict()
        self.original = list(_state(pipe))

    @property
    def applies(self) -> bool:
        """Whether the pipeline encodes prompts as it did when this was made."""
        now = list(_state(self.pipe))
        same = len(now) == len(self.original) and all(map(_same, now, self.original))
        return same and hasattr(self.pipe, "encode_prompt")

    @contextmanager
    def used(self, device: torch.device | str) -> Iterator[None]:
        """Take prompts from what is kept inside the context, and keep those that are encoded in it, where :attr:`applies`."""
        encode: Callable[..., Any] = self.pipe.encode_prompt

        def recalled(*args: Any, **kwargs: Any) -> Any:
            key = _key(args, kwargs)
            if key is None:
                return encode(*args, **kwargs)
            if key not in self.kept:
                self._keep(key, made := encode(*args, **kwargs))
                return made
            self.kept.move_to_end(key)
            return tree_map(lambda leaf: leaf.on(device) if isinstance(leaf, _Rows) else leaf, self.kept[key])

        with patched(self.pipe, "encode_prompt", recalled):
            yield

    def _keep(self, key: str, made: Any) -> None:
        kept = tree_map(lambda leaf: _Rows(leaf) if isinstance(leaf, torch.Tensor) else leaf, made)
        size = _bytes(kept)
        while self.kept and self.bytes + size > self.most:
            self.bytes -= _bytes(self.kept.popitem(last=False)[1])
        if size <= self.most:
            self.kept[key], self.bytes = kept, self.bytes + size


class _Rows:
    """A tensor on the host; one whose rows are all the same, as the empty prompt's are, is kept as one row."""

    def __init__(self, tensor: torch.Tensor) -> None:
        rows, self.shape = tensor.detach().cpu(), tensor.shape
        repeated = rows.dim() > 0 and len(rows) > 1 and bool((rows == rows[:1]).all())
        self.rows = (rows[:1] if repeated else rows).clone()

    @property
    def bytes(self) -> int:
        return self.rows.numel() * self.rows.element_size()

    def on(self, device: torch.device | str) -> torch.Tensor:
        """A tensor that its user may change."""
        return to_device(self.rows.expand(self.shape).clone(), device)


def _bytes(kept: Any) -> int:
    return sum(leaf.bytes for leaf in tree_leaves(kept) if isinstance(leaf, _Rows))


def _key(args: Any, kwargs: Any) -> str | None:
    """All that a call is told, and what it is computed in; None where it is told tensors."""
    if any(isinstance(leaf, torch.Tensor) for leaf in tree_leaves((args, kwargs))):
        return None
    kinds = ("cpu", "cuda")
    arithmetic = [(torch.is_autocast_enabled(kind), torch.get_autocast_dtype(kind)) for kind in kinds]
    return repr((args, sorted(kwargs.items()), arithmetic))


def _state(pipe: Any) -> Iterator[object]:
    """All that decides what encoding gives: the parameters and how often they were written to, what was patched, hooks."""
    yield _beneath(pipe, vars(pipe).get("encode_prompt"))
    for name, encoder in text_encoders(pipe).items():
        yield name
        for module in encoder.modules():
            yield from (vars(module).get("forward"), len(module._forward_hooks), len(module._forward_pre_hooks))
        for tensor in (*encoder.parameters(), *encoder.buffers()):
            yield from (tensor, _Place(tensor.device, tensor.data_ptr()), 0 if tensor.is_inference() else tensor._version)
    yield from (part for name, part in pipe.components.items() if name.startswith("tokenizer"))


@dataclass(frozen=True)
class _Place:
    """Where a tensor's numbers lie; they may also lie on another device for a while."""

    device: torch.device
    address: int


def _same(a: object, b: object) -> bool:
    if isinstance(a, _Place) and isinstance(b, _Place):
        return a.address == b.address or a.device != b.device
    return a is b or (isinstance(a, int | str) and a == b)


def _beneath(pipe: Any, encode: Any) -> Any:
    """What a stopwatch was put around: None where that is how the class encodes."""
    while hasattr(encode, "beneath"):
        encode = encode.beneath
    return None if getattr(encode, "__self__", None) is pipe else encode
