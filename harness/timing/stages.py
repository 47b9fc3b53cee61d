"""Time and memory of the stages of one pipeline call."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

import torch

from harness.sampling.patching import patched

if TYPE_CHECKING:
    from harness.sampling.pipeline import Pipeline


class StageTimer:
    """Seconds of ``text``, ``denoise`` (to the first call of the decoder), ``decode`` (to uint8 images on the device) and
    ``copy`` (to the host). ``peaks``: of a GPU the most bytes allocated in each stage, ``reserved`` the most that torch held.

    On a GPU the borders are CUDA events in the stream, so that the host is not stopped between stages; elsewhere they are
    readings of the host clock. :meth:`now` is the host clock after all queued work, for the end-to-end time.
    """

    def __init__(self, device: str) -> None:
        self.device = device
        self.on_gpu = device.startswith("cuda")
        self.text_s = self.denoise_s = self.decode_s = self.copy_s = 0.0
        self.peaks: dict[str, int] = {}
        self.reserved: int | None = None

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

    def _leave(self, stage: str) -> Any:
        """The border behind a stage. What a GPU allocates is known on the host without waiting for it."""
        if self.on_gpu:
            self.peaks[stage] = max(self.peaks.get(stage, 0), torch.cuda.max_memory_allocated(self.device))
            self.reserved = max(self.reserved or 0, torch.cuda.max_memory_reserved(self.device))
            torch.cuda.reset_peak_memory_stats(self.device)
        return self._mark()

    @contextmanager
    def timing(self, pipeline: Pipeline) -> Iterator[None]:
        """Time one call of ``pipeline.generate`` made inside the context."""
        pipe = pipeline.pipe
        encode: Callable[..., Any] = getattr(pipe, "encode_prompt", nullcontext)
        decode: Callable[..., Any] = pipe.vae.decode
        if self.on_gpu:
            torch.cuda.reset_peak_memory_stats(self.device)
        began = self._mark()
        borders: dict[str, Any] = {}

        def timed_text(*args: Any, **kwargs: Any) -> Any:
            result = encode(*args, **kwargs)
            borders["text"] = self._leave("text")
            return result

        timed_text.beneath = encode  # type: ignore[attr-defined]  # nothing else changes: see EncodedPrompts

        def timed_decode(*args: Any, **kwargs: Any) -> Any:
            if "denoise" not in borders:
                borders["denoise"] = self._leave("denoise")
            return decode(*args, **kwargs)

        def converted() -> None:
            borders["decode"] = self._leave("decode")

        text = patched(pipe, "encode_prompt", timed_text) if hasattr(pipe, "encode_prompt") else nullcontext()
        with text, patched(pipe.vae, "decode", timed_decode), patched(pipeline, "converted", converted):
            yield
        ended = self._leave("copy")
        self.now()
        text_end = borders.get("text", began)
        denoise_end = borders.get("denoise", ended)
        decode_end = borders.get("decode", ended)
        self.text_s, self.denoise_s = self._between(began, text_end), self._between(text_end, denoise_end)
        self.decode_s, self.copy_s = self._between(denoise_end, decode_end), self._between(decode_end, ended)
