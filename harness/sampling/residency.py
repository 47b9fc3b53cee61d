"""Which components of a pipeline lie on its device: all of them, or, where memory is short, those of the present stage."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from harness.cost.memory import STAGES, Offload, part_of, resident
from harness.sampling.patching import patched


class Residency:
    """Moves components between host and device at the borders of stages; see :func:`harness.cost.memory.resident`.

    Parameters stay the objects that they are, and only their data move. What has not been written to on the device is not copied
    back. Between calls the denoiser is on the device.
    """

    def __init__(self, pipe: Any, device: str, offload: Offload) -> None:
        self.pipe, self.device, self.offload = pipe, device, offload
        self.stage = "none"
        self.moved: dict[str, list[tuple[torch.Tensor, torch.Tensor, int]]] = {}  # on the device: tensor, its host data, version
        if offload == "none":
            pipe.to(device)
        else:
            self.enter("denoise")

    @property
    def host_bytes(self) -> int:
        """Of the components that leave the device at some time."""
        parts = [part for name, part in self._parts() if not all(resident(stage, name, self.offload) for stage in STAGES)]
        return sum(t.numel() * t.element_size() for part in parts for t in _tensors(part))

    def enter(self, stage: str) -> None:
        """Have the components of a stage on the device, after the others have left it."""
        stage = "denoise" if self.offload == "text" and stage == "decode" else stage  # the same components
        if self.offload == "none" or stage == self.stage:
            return
        parts = list(self._parts())
        for name, part in parts:
            if not resident(stage, name, self.offload):
                self._leave(name, part)
        for name, part in parts:
            if resident(stage, name, self.offload) and name not in self.moved:
                self.moved[name] = [(tensor, tensor.data, tensor._version) for tensor in _tensors(part)]
                for tensor in _tensors(part):
                    tensor.data = tensor.data.to(self.device)
        self.stage = stage

    def _leave(self, name: str, part: nn.Module) -> None:
        """Whatever a component has become on the device, its data lie on the host."""
        for tensor, host, version in self.moved.pop(name, []):
            if tensor._version == version and not part_of("denoise", name):
                tensor.data = host
        torch.clear_autocast_cache()
        for tensor in _tensors(part):
            tensor.data = tensor.data.to("cpu")

    def _parts(self) -> Iterator[tuple[str, nn.Module]]:
        return ((name, part) for name, part in self.pipe.components.items() if isinstance(part, nn.Module))

    @contextmanager
    def encoding(self) -> Iterator[None]:
        """Have the text encoders on the device when prompts are encoded inside the context."""
        if self.offload == "none" or not hasattr(self.pipe, "encode_prompt"):
            yield
            return
        encode: Callable[..., Any] = self.pipe.encode_prompt

        def encoding(*args: Any, **kwargs: Any) -> Any:
            self.enter("text")
            return encode(*args, **kwargs)

        with patched(self.pipe, "encode_prompt", encoding):
            yield

    @contextmanager
    def following(self) -> Iterator[None]:
        """Have the denoiser there once prompts are encoded, and the decoder when it is called.

        Enter it after what recalls prompts.
        """
        if self.offload == "none":
            yield
            return
        encode, decode = getattr(self.pipe, "encode_prompt", None), self.pipe.vae.decode

        def encoded(*args: Any, **kwargs: Any) -> Any:
            assert encode is not None
            result = encode(*args, **kwargs)
            self.enter("denoise")
            return result

        def decoding(*args: Any, **kwargs: Any) -> Any:
            self.enter("decode")
            return decode(*args, **kwargs)

        if encode is None:
            self.enter("denoise")
            with patched(self.pipe.vae, "decode", decoding):
                yield
            return
        with patched(self.pipe.vae, "decode", decoding), patched(self.pipe, "encode_prompt", encoded):
            yield


def _tensors(part: nn.Module) -> Iterator[torch.Tensor]:
    yield from part.parameters()
    yield from part.buffers()
