"""Wall-clock time of the three stages of one pipeline call."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch

from harness.patching import patched


class StageTimer:
    """Seconds of ``text``, ``denoise`` and ``decode``: the host clock, read after the device has finished."""

    def __init__(self, device: str) -> None:
        self.device = device
        self.text_s = self.denoise_s = self.decode_s = 0.0

    def now(self) -> float:
        """Seconds, once all queued work is done."""
        if self.device.startswith("cuda"):
            torch.cuda.synchronize()
        return time.perf_counter()

    @contextmanager
    def timing(self, pipe: Any) -> Iterator[None]:
        """Time one call of a diffusers pipeline made inside the context."""
        encode: Callable[..., Any] = getattr(pipe, "encode_prompt", nullcontext)
        decode: Callable[..., Any] = pipe.vae.decode
        began = self.now()
        text_end, decode_s = began, 0.0

        def timed_text(*args: Any, **kwargs: Any) -> Any:
            nonlocal text_end
            result = encode(*args, **kwargs)
            text_end = self.now()
            return result

        def timed_decode(*args: Any, **kwargs: Any) -> Any:
            nonlocal decode_s
            start = self.now()
            result = decode(*args, **kwargs)
            decode_s += self.now() - start
            return result

        text = patched(pipe, "encode_prompt", timed_text) if hasattr(pipe, "encode_prompt") else nullcontext()
        with text, patched(pipe.vae, "decode", timed_decode):
            yield
        ended = self.now()
        self.text_s, self.decode_s = text_end - began, decode_s
        self.denoise_s = ended - began - self.text_s - decode_s
