"""The messages between ilf-bench and a scorer command, and the check of everything that a command says."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from harness.results import Direction, FloatArray

PROTOCOL = 1
LARGEST = float(np.finfo(np.float32).max)
SHOWN = 120  # characters of a wrong line in a message


class CommandFault(Exception):
    """The command did not keep to the protocol, or ended, or was too slow: ``got`` says what was seen instead of ``expected``."""

    def __init__(self, expected: str, got: str) -> None:
        super().__init__(f"expected {expected}; got {got}")
        self.expected, self.got = expected, got


class RefusedBatch(RuntimeError):
    """The command itself says that it cannot score this batch; another batch, or a smaller one, may go well."""


class Handshake(BaseModel):
    """The first line that a command says: what it measures, and everything that fixes its numbers.

    ``range``: the smallest and the largest possible value, null where there is none. ``width``: numbers per image; more than one
    are features. ``paired``: it compares with the full run's image.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)
    protocol: int
    name: str = Field(min_length=1)
    weights: str = Field(min_length=1)
    direction: Direction
    packages: dict[str, str] = {}
    preprocessing: str = ""
    title: str = ""
    unit: str = ""
    range: tuple[float | None, float | None] = Field((None, None), strict=False)
    width: int = Field(1, ge=1, le=65536)
    paired: bool = False

    def fingerprint(self) -> dict[str, str]:
        """Everything but how it is shown."""
        known = {
            "command": self.name,
            "weights": self.weights,
            "preprocessing": self.preprocessing,
            "direction": self.direction,
            "range": json.dumps(self.range),
            "width": str(self.width),
            "paired": json.dumps(self.paired),
        }
        return {**known, **{f"package {name}": version for name, version in sorted(self.packages.items())}}


def read_handshake(line: bytes) -> Handshake:
    """The handshake in a line. Raises :class:`CommandFault`."""
    content = read_object(line, "the handshake, one JSON object in a line")
    if content.get("protocol") != PROTOCOL:
        raise CommandFault(f"a handshake of protocol {PROTOCOL}", f"protocol {content.get('protocol')!r}")
    try:
        return Handshake.model_validate(content)
    except ValidationError as error:
        wrong = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise CommandFault(f"a handshake with {', '.join(Handshake.model_fields)}", wrong) from error


def read_rows(line: bytes, batch: int, n: int, hello: Handshake) -> FloatArray:
    """The answer to batch number ``batch`` of ``n`` images: float32 [n, width].

    Raises :class:`CommandFault` on anything else, and :class:`RefusedBatch` where the command refuses the batch.
    """
    content = read_object(line, f"the answer to batch {batch}")
    if content.get("batch") != batch:
        raise CommandFault(f"the answer to batch {batch}", f"one to batch {content.get('batch')!r}")
    if content.get("weights") != hello.weights:
        raise CommandFault(f"weights {hello.weights} as in the handshake", f"{content.get('weights')!r}")
    if (packages := content.get("packages", hello.packages)) != hello.packages:
        raise CommandFault(f"packages {hello.packages} as in the handshake", f"{packages!r}"[:SHOWN])
    if "error" in content:
        raise RefusedBatch(f"{hello.name}: {' '.join(str(content['error']).split())[:500]}")
    rows = content.get("rows")
    if not isinstance(rows, list) or len(rows) != n:
        raise CommandFault(
            f"{n} rows, one per image", f"{len(rows)} rows" if isinstance(rows, list) else f"rows {rows!r}"[:SHOWN]
        )
    return np.array([_row(row, i, hello) for i, row in enumerate(rows)], dtype=np.float32)


def _row(row: Any, index: int, hello: Handshake) -> list[float]:
    numbers = row if isinstance(row, list) else [row]
    if len(numbers) != hello.width or not all(isinstance(x, int | float) and not isinstance(x, bool) for x in numbers):
        got = f"{row!r}"[:SHOWN]
        raise CommandFault(f"{hello.width} numbers for each image", f"{got} for image {index} of the batch")
    low, high = (end if end is not None else sign * math.inf for end, sign in zip(hello.range, (-1, 1), strict=True))
    for number in numbers:
        if not (low <= number <= high and abs(number) <= LARGEST):
            raise CommandFault(
                f"finite numbers from {low:g} to {high:g}", f"{number!r}"[:SHOWN] + f" for image {index} of the batch"
            )
    return [float(number) for number in numbers]


def read_object(line: bytes, expected: str) -> dict[str, Any]:
    """A JSON object. Raises :class:`CommandFault`."""
    try:
        content = json.loads(line)
    except (ValueError, RecursionError) as error:
        shown = repr(line[:SHOWN].decode(errors="replace").strip())
        raise CommandFault(expected, f"{shown} (a command must print everything else to its standard error)") from error
    if not isinstance(content, dict):
        raise CommandFault(expected, f"{content!r}"[:SHOWN])
    return content


def request(batch: int, images: Sequence[str], prompts: Sequence[str], full: Sequence[str] | None) -> bytes:
    """The line that asks for a batch."""
    content: Mapping[str, Any] = {"batch": batch, "images": list(images), "prompts": list(prompts)}
    return json.dumps({**content, **({} if full is None else {"full": list(full)})}).encode() + b"\n"
