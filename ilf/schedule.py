"""On which denoising steps the inner loop runs."""

from __future__ import annotations

import re

from harness.errors import UsageError


def feedback_steps(text: str, steps: int) -> frozenset[int]:
    """0-based numbers of the steps that carry feedback.

    ``all``, ``none``, ``first-K``, ``last-K``, ``paper-K`` (K steps spread evenly by i * (n / m): our reading of the
    paper's "feedback-aware inference scheduling", whose exact form is not published), or numbers joined by ``.`` or ``,``.
    """
    named = re.fullmatch(r"(first|last|paper)-(\d+)", text)
    if named:
        count = min(int(named[2]), steps)
        every = {
            "first": range(count),
            "last": range(steps - count, steps),
            "paper": (int(i * steps / count) for i in range(count)),
        }
        return frozenset(every[named[1]])
    if text in ("all", "none"):
        return frozenset(range(steps) if text == "all" else ())
    numbers = re.split(r"[.,]", text)
    if not all(n.isdecimal() and int(n) < steps for n in numbers):
        raise UsageError(
            expected=f"all, none, first-K, last-K, paper-K or step numbers below {steps}", got=repr(text), remedy="edit feedback="
        )
    return frozenset(int(n) for n in numbers)
