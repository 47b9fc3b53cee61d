"""Measurements under way: what all metrics measured of one range of images, in two files that are worth nothing alone."""

from __future__ import annotations

import io
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from harness.errors import ArtifactError
from harness.results import FloatArray
from harness.storage.arrays import ARRAY_BYTES, read_arrays
from harness.storage.files import digest, read_small, write_bytes
from harness.storage.layout import Layout, Pair
from harness.storage.records import read_json, write_json


@dataclass(frozen=True)
class Unmeasured:
    """Why a metric has no rows; ``failed`` where that is a failure of the run, and not in the nature of the metric."""

    reason: str
    failed: bool


@dataclass(frozen=True)
class PartialMeasurements:
    """Each measurement has a key of its images and its metric, so that rows of other ones are never taken for them."""

    run: Path
    method: str
    start: int

    @property
    def files(self) -> Pair:
        """Where it lies."""
        return Layout(self.run).partial(self.method, self.start)

    def rows(self, keys: Mapping[str, str]) -> dict[str, FloatArray]:
        """Rows [B, d] by measurement, of those that have been written under this very key and are intact."""
        try:
            known = read_json(self.files.record)["keys"] if self.files.record.exists() else {}
            found = self.read()[0] if known else {}
        except (ArtifactError, KeyError):
            return {}
        return {name: found[name] for name, key in keys.items() if known.get(name) == key and name in found}

    def write(self, keys: Mapping[str, str], rows: Mapping[str, FloatArray], missing: Mapping[str, Unmeasured]) -> None:
        """Rows by measurement, or why there are none: the arrays first, then the receipt that makes them count."""
        buffer = io.BytesIO()
        np.savez(buffer, allow_pickle=False, **rows)
        write_bytes(self.files.array, buffer.getvalue())
        reasons = {name: asdict(why) for name, why in missing.items()}
        content = {"keys": dict(keys), "digest": digest(buffer.getvalue()), "metrics": list(rows), "missing": reasons}
        write_json(self.files.record, content)

    def read(self) -> tuple[dict[str, FloatArray], dict[str, Unmeasured]]:
        """Rows and reasons by measurement. Raises :class:`ArtifactError` where the part is missing or damaged."""
        receipt = read_json(self.files.record)
        try:
            content = read_small(self.files.array, ARRAY_BYTES)
            if digest(content) != receipt["digest"]:
                raise ValueError("another content than was written")
            rows = read_arrays(content, receipt["metrics"])
            return rows, {name: Unmeasured(**why) for name, why in receipt["missing"].items()}
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ArtifactError(
                expected=f"measurements at {self.files.array}", got=str(error), remedy="run again: that range is measured again"
            ) from error

    def keep(self, names: Collection[str]) -> None:
        """Only the rows of these measurements, for the next run to go on from; without any the part goes."""
        try:
            known = read_json(self.files.record)["keys"] if names else {}
            rows = {name: found for name, found in (self.read()[0] if names else {}).items() if name in names}
        except (ArtifactError, KeyError):
            rows = {}
        if rows:
            self.write({name: known[name] for name in rows}, rows, {})
        else:
            self.remove()

    def remove(self) -> None:
        """The receipt first, so that a half-removed part does not count."""
        self.files.record.unlink(missing_ok=True)
        self.files.array.unlink(missing_ok=True)
