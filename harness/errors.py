"""Errors that a user can act on: what was expected, what was found, and what to do about it."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from functools import partial
from typing import Any

from harness.text import said


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """``did you mean 'steps'? `` for a word that is nearly one of the known, else nothing: the beginning of a remedy.

    >>> did_you_mean("deepcach", ["deepcache", "fora", "steps"])
    "did you mean 'deepcache'? "
    """
    near = difflib.get_close_matches(word, list(known), 1)
    return f"did you mean {near[0]!r}? " if near else ""


class HarnessError(Exception):
    """A foreseen failure. The command line prints it without a traceback and leaves with ``exit_code``."""

    exit_code = 65

    def __init__(self, *, expected: str, got: str, remedy: str) -> None:
        self.expected, self.got, self.remedy = said(expected), said(got), said(remedy)
        super().__init__(f"expected {self.expected}; got {self.got}; remedy: {self.remedy}")

    def __reduce__(self) -> tuple[Any, ...]:  # it may have to travel from another process
        return partial(type(self), expected=self.expected, got=self.got, remedy=self.remedy), ()


class UsageError(HarnessError):
    """The command, preset or option is wrong: exit code 64 (EX_USAGE of sysexits.h)."""

    exit_code = 64


class ArtifactError(HarnessError):
    """A file on disk is missing, damaged, or belongs to another experiment: exit code 65 (EX_DATAERR)."""


class DeviceLost(HarnessError):
    """This process can no longer use its GPU at all: exit code 74 (EX_IOERR). A new process can."""

    exit_code = 74


class NotMeasured(HarnessError):
    """What one method needs is not available: that method becomes a failed row, every other one still runs."""

    exit_code = 4

    def __str__(self) -> str:
        return f"NOT-MEASURED: {super().__str__()}"
