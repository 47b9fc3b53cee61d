"""What could not be compared, one line a reason, however many methods and metrics it concerns."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from reports.analysis.changes import METHOD

MOST_NAMES = 5


def reason_lines(missing: Iterable[tuple[str, str, str]], methods: Sequence[str]) -> list[str]:
    """Of (method, check, reason): ``speed and memory of every method: different machines``; ``8 steps: it failed``."""
    found: dict[str, tuple[dict[str, None], dict[str, None]]] = {}
    for method, check, reason in missing:
        of, checks = found.setdefault(reason, ({}, {}))
        of[method], checks[check] = None, None
    return [f"{_subject(list(of), list(checks), methods)}: {reason}" for reason, (of, checks) in found.items()]


def _subject(of: Sequence[str], checks: Sequence[str], methods: Sequence[str]) -> str:
    named = "every method" if len(methods) > 1 and set(of) >= set(methods) else some(of)
    return named if checks == [METHOD] else f"{joined(checks)} of {named}"


def some(names: Sequence[str], most: int = MOST_NAMES) -> str:
    """The first names, and how many more there are: ``a, b and 3 more``."""
    more = len(names) - most
    return joined(names) if more <= 0 else f"{', '.join(names[:most])} and {more} more"


def joined(names: Sequence[str]) -> str:
    """``a, b and c``."""
    return " and ".join(filter(None, (", ".join(names[:-1]), *names[-1:])))
