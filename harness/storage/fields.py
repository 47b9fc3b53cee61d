"""What the fields of a record may hold: names for a reader, and ranges for whoever reads a file that anybody can have written.

Pydantic validates them where a record enters or is read (harness/storage/checks.py); constructing a record checks nothing.
Ranges are far beyond what is ever measured, and within what arithmetic on them can bear.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field

from harness.text import visible

METRIC_NAME = r"^[a-z0-9_]+$"  # it becomes a part of a path
PRESET_NAME = r"^[A-Za-z0-9._-]+$"
MOST_COUNT, MOST_NUMBER, MOST_SECONDS = 10**15, 1e15, 1e9  # 31 years


def _line(text: str) -> str:
    if visible(text) != text:
        raise ValueError("a control character, or a mark that turns the reading direction")
    return text


def _storable(text: str) -> str:
    text.encode()  # half a letter is none
    return text


Line = Annotated[str, Field(max_length=2_000), AfterValidator(_line)]
Label = Annotated[str, Field(min_length=1, max_length=200), AfterValidator(_line)]
Text = Annotated[str, Field(max_length=100_000), AfterValidator(_storable)]
MetricName = Annotated[str, Field(pattern=METRIC_NAME, max_length=100)]
PresetName = Annotated[str, Field(pattern=PRESET_NAME, max_length=200)]
Flag = Annotated[bool, Field(strict=True)]
Count = Annotated[int, Field(strict=True, ge=0, le=MOST_COUNT)]
PositiveCount = Annotated[int, Field(strict=True, ge=1, le=MOST_COUNT)]
RoundNumber = Annotated[int, Field(strict=True, ge=-MOST_COUNT, le=MOST_COUNT)]
Number = Annotated[float, Field(strict=True, ge=-MOST_NUMBER, le=MOST_NUMBER)]
Amount = Annotated[float, Field(strict=True, ge=0, le=MOST_NUMBER)]
Seconds = Annotated[float, Field(strict=True, ge=0, le=MOST_SECONDS)]
PositiveSeconds = Annotated[float, Field(strict=True, gt=0, le=MOST_SECONDS)]
