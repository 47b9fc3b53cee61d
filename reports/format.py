"""Numbers as text, the same in every rendering."""

from __future__ import annotations

import math

from harness.statistics import Interval


def number(value: float, digits: int = 3) -> str:
    """``value`` with ``digits`` significant digits, never in exponent form between 0.0001 and a million.

    >>> number(0.033512), number(1234.5), number(float("inf"))
    ('0.0335', '1234', '∞')
    """
    if not math.isfinite(value):
        return "∞" if value > 0 else "−∞" if value < 0 else "undefined"
    if value == 0:
        return "0"
    size = math.floor(math.log10(abs(value)))
    if not -5 <= size < 6:
        return f"{value:.{digits - 1}e}".replace("-", "−")
    return f"{value:.{max(0, digits - 1 - size)}f}".replace("-", "−")


def decimals(half_width: float) -> int:
    """Decimals that show two significant digits of an uncertainty."""
    if not math.isfinite(half_width) or half_width <= 0:
        return 3
    return max(0, min(6, 1 - math.floor(math.log10(half_width))))


def plus_minus(value: float, half_width: float) -> str:
    """``27.97 ± 0.36``, as precise as the half-width allows."""
    if not math.isfinite(half_width):
        return f"{number(value)} (no interval: N = 1)"
    places = decimals(half_width)
    return f"{value:.{places}f} ± {half_width:.{places}f}".replace("-", "−")


def interval_text(interval: Interval, signed: bool = False) -> str:
    """``0.52 [0.48, 0.57]``; with ``signed`` a positive number carries its sign.

    >>> interval_text(Interval(-1e-9, -2e-9, 1e-9))
    '0.000000 [0.000000, 0.000000]'
    """
    half = (interval.high - interval.low) / 2
    if not math.isfinite(half):
        return f"{number(interval.value)} (no interval: N = 1)"
    places, sign = decimals(half), "+" if signed else ""
    value, low, high = (round(bound, places) + 0.0 for bound in (interval.value, interval.low, interval.high))  # no -0.00
    return f"{value:{sign}.{places}f} [{low:{sign}.{places}f}, {high:{sign}.{places}f}]".replace("-", "−")


def times_text(ratio: Interval) -> str:
    """``1.52× [1.48, 1.57]``: how many times as fast.

    >>> times_text(Interval(1.52, 1.48, 1.57))
    '1.520× [1.480, 1.570]'
    """
    value, bounds = interval_text(ratio).split(" ", 1)
    return f"{value}× {bounds}"


def count(value: float) -> str:
    """A whole number with thin grouping, or one decimal where it is none."""
    return f"{value:,.0f}" if value == int(value) else f"{value:,.1f}"


def duration(seconds: float) -> str:
    """Seconds up to two minutes, then minutes up to two hours, then hours.

    >>> duration(1.5), duration(201), duration(10835)
    ('1.50 s', '3.35 min', '3.01 h')
    """
    size, unit = (1, "s") if seconds < 120 else (60, "min") if seconds < 7200 else (3600, "h")
    return f"{number(seconds / size)} {unit}"


def megabytes(value: float) -> str:
    """Bytes as MB (10^6)."""
    return f"{round(value / 1e6):,} MB".replace("-", "−")
