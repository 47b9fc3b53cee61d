"""Replace an attribute of one object inside a context and leave no trace of it afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def patched(target: Any, name: str, value: Any) -> Iterator[None]:
    """Shadow ``target.name`` by an instance attribute; on exit restore what the instance held, or nothing."""
    held = vars(target)
    had, before = name in held, held.get(name)
    object.__setattr__(target, name, value)
    try:
        yield
    finally:
        if had:
            object.__setattr__(target, name, before)
        else:
            object.__delattr__(target, name)
