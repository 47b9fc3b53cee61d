"""Time of the three stages of one pipeline call."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch

from harness.sampling.patching import patched


class StageTimer:
    """Seconds of ``text``, ``denoise`` (to the first call of the decoder) and ``decode`` (to the image on the host).

    On a GPU the borders are CUDA events in the stream, so that the host is not stopped between stages; elsewhere they are
    readings of the host clock. :meth:`now` is the host clock after all queued work, for the end-to-end time.
    """

    def __init__(self, device: str) -> None:
        self.device = device
        self.on_gpu = device.startswith("cuda")
        self.text_s = self.denoise_s = self.decode_s = 0.0

    def now(self) -> float:
        """Seconds, once all queued work is done."""
        if self.on_gpu:
            torch.cuda.synchronize(self.device)
        return time.perf_counter()

    def _mark(self) -> Any:
        """A border between two stages."""
        if not self.on_gpu:
            return time.perf_counter()
        event: Any = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        event.record(torch.cuda.current_stream(self.device))
        return event

    def _between(self, first: Any, second: Any) -> float:
        """Seconds between two borders; on a GPU all work must be done."""
        return float(first.elapsed_time(second)) / 1000 if self.on_gpu else second - first

    @contextmanager
    def timing(self, pipe: Any) -> Iterator[None]:
        """Time one call of a diffusers pipeline made inside the context."""
        encode: Callable[..., Any] = getattr(pipe, "encode_prompt", nullcontext)
        decode: Callable[..., Any] = pipe.vae.decode
        began = text_end = self._mark()
        decode_begin: Any = None

        def timed_text(*args: Any, **kwargs: Any) -> Any:
            nonlocal text_end
            result = encode(*args, **kwargs)
            text_end = self._mark()
            return result

        def timed_decode(*args: Any, **kwargs: Any) -> Any:
            nonlocal decode_begin
            decode_begin = decode_begin or self._mark()
            return decode(*args, **kwargs)

        text = patched(pipe, "encode_prompt", timed_text) if hasattr(pipe, "encode_prompt") else nullcontext()
        with text, patched(pipe.vae, "decode", timed_decode):
            yield
        ended = self._mark()
        self.now()
        self.text_s = self._between(began, text_end)
        self.denoise_s = self._between(text_end, decode_begin or ended)
        self.decode_s = self._between(decode_begin or ended, ended)
