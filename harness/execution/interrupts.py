"""Requests to end: Ctrl-C and SIGTERM.

Each raises ``KeyboardInterrupt``, and is remembered, because libraries lose that: one interrupt in 40 that came while weights
were loaded left torch, diffusers or safetensors as an error of another type.
"""

from __future__ import annotations

import signal
from types import FrameType

_asked: list[int] = []  # signals that came


def listen() -> None:
    """From now on. Ctrl-C stays ignored where it is, as in a shell's background job."""
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, _interrupt)
    signal.signal(signal.SIGTERM, _interrupt)


def interrupted() -> bool:
    """Whether this process was asked to end."""
    return bool(_asked)


def end_if_asked() -> None:
    """Raise ``KeyboardInterrupt`` if this process was asked to end: for between two pieces of work."""
    if interrupted():
        raise KeyboardInterrupt


def _interrupt(number: int, frame: FrameType | None) -> None:
    _asked.append(number)
    raise KeyboardInterrupt
