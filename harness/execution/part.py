"""A share of a run's images, for a scheduler that starts many processes on one shared folder, as Slurm's job arrays do."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import TypeVar

from harness.errors import UsageError

T = TypeVar("T")


@dataclass(frozen=True)
class Part:
    """Part ``number`` (from 1) of ``count``."""

    number: int
    count: int

    @classmethod
    def of(cls, text: str) -> Part:
        """``3/8`` is the third of eight. Raises :class:`UsageError`.

        >>> Part.of("3/8")
        Part(number=3, count=8)
        """
        found = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text)
        if not found or not 1 <= int(found[1]) <= int(found[2]):
            raise UsageError(expected="--part NUMBER/COUNT with a number from 1 to COUNT", got=repr(text), remedy="--part 1/8")
        return cls(int(found[1]), int(found[2]))

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"

    def of_all(self, items: Iterable[T]) -> Iterator[T]:
        """Every ``count``-th item: all parts together have each item once.

        >>> list(Part(2, 3).of_all("abcdefg"))
        ['b', 'e']
        """
        return islice(items, self.number - 1, None, self.count)
