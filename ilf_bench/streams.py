"""Standard output and error that never end a run: closed ones, pipes that nobody reads, and encodings without our signs."""

from __future__ import annotations

import codecs
import errno
import os
import sys
from typing import Any, TextIO, cast

HANDLER = "ilf_bench.plain"
PLAIN = {"×": "x", "·": "-", "–": "-", "—": "-", "↑": "^", "↓": "v", "±": "~", "…": ".", "≥": ">", "≤": "<", "’": "'", "≈": "~"}
GONE = (errno.EPIPE, errno.EIO)  # the reader of a pipe has left, or the terminal was closed


def steady_streams() -> None:
    """Make ``sys.stdout`` and ``sys.stderr`` so, before anything is printed or opened."""
    codecs.register_error(HANDLER, _plain)
    for name in ("stdin", "stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by the caller: the next file that is opened would take its place
            nowhere = open(os.devnull, "r" if name == "stdin" else "w", encoding="utf-8")  # noqa: SIM115
            setattr(sys, name, nowhere)
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors=HANDLER)
        setattr(sys, name, cast(TextIO, _Steady(stream)))


def _plain(error: UnicodeError) -> tuple[str, int]:
    """A sign of ASCII for each that the stream cannot take, so that tables stay in line."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(PLAIN.get(sign, "?") for sign in error.object[error.start : error.end]), error.end


class _Steady:
    """A text stream that goes on in silence once nobody reads it: a run is not lost, and a verdict keeps its exit code."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """As the stream's own."""
        try:
            return int(self._stream.write(text))
        except OSError as error:
            self._give_up(error)
        return len(text)

    def flush(self) -> None:
        """As the stream's own."""
        try:
            self._stream.flush()
        except OSError as error:
            self._give_up(error)

    def writelines(self, lines: Any) -> None:
        """As the stream's own."""
        for line in lines:
            self.write(line)

    def _give_up(self, error: OSError) -> None:
        if error.errno not in GONE:
            raise error
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self._stream.fileno())
        os.close(nowhere)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def __iter__(self) -> Any:
        return iter(self._stream)
