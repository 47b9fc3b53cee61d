"""What networks measured on the images of one method, kept so that another score of the same features costs nothing."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harness.results import FloatArray
from harness.storage.arrays import read_array, write_array
from harness.storage.layout import Layout
from harness.storage.records import read_json, write_json


def write_measurement(run: Path, method: str, name: str, basis: Mapping[str, Any], rows: FloatArray) -> None:
    """Measurements [N, d] of one method, then the ``basis`` (networks, images) that makes them count."""
    files = Layout(run).measurement(method, name)
    files.record.unlink(missing_ok=True)
    content = write_array(files.array, rows)
    write_json(files.record, {"digest": content, **basis})


def has_measurement(run: Path, method: str, name: str) -> bool:
    """Whether :func:`read_measurement` would find anything, of whatever basis."""
    return Layout(run).measurement(method, name).record.exists()


def read_measurement(run: Path, method: str, name: str, basis: Mapping[str, Any] | None = None) -> FloatArray | None:
    """Measurements [N, d], or None where there are none, or none of that ``basis``.

    Raises :class:`ArtifactError` on damaged ones.
    """
    if not has_measurement(run, method, name):
        return None
    files = Layout(run).measurement(method, name)
    stored = read_json(files.record)
    content = stored.pop("digest", "")
    if basis is not None and stored != dict(basis):
        return None
    return read_array(files.array, content)
