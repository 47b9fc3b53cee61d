"""Measurements under way: what all metrics measured of one range of images, in two files that are worth nothing alone."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from harness.errors import ArtifactError
from harness.results import FloatArray
from harness.storage.layout import Layout, Pair
from harness.storage.records import digest, read_json, write_bytes, write_json


@dataclass(frozen=True)
class Missing:
    """Why a metric has no rows; ``failed`` where that is a failure of the run, and not in the nature of the metric."""

    reason: str
    failed: bool


@dataclass(frozen=True)
class Part:
    """``key`` identifies the images and the metrics, so that a part of other ones is never taken for this."""

    run: Path
    method: str
    start: int

    @property
    def files(self) -> Pair:
        """Where it lies."""
        return Layout(self.run).partial(self.method, self.start)

    def holds(self, key: str) -> bool:
        """Whether this very part has been written and is intact."""
        receipt = self.files.record
        try:
            if not receipt.exists() or read_json(receipt).get("key") != key:
                return False
            self.read()
        except ArtifactError:
            return False
        return True

    def write(self, key: str, rows: Mapping[str, FloatArray], missing: Mapping[str, Missing]) -> None:
        """Rows [B, d] by metric, or why there are none: the arrays first, then the receipt that makes them count."""
        buffer = io.BytesIO()
        np.savez(buffer, allow_pickle=False, **rows)
        write_bytes(self.files.array, buffer.getvalue())
        reasons = {name: asdict(why) for name, why in missing.items()}
        content = {"key": key, "digest": digest(buffer.getvalue()), "metrics": list(rows), "missing": reasons}
        write_json(self.files.record, content)

    def read(self) -> tuple[dict[str, FloatArray], dict[str, Missing]]:
        """Rows and reasons by metric. Raises :class:`ArtifactError` where the part is missing or damaged."""
        receipt = read_json(self.files.record)
        try:
            content = self.files.array.read_bytes()
            if digest(content) != receipt["digest"]:
                raise ValueError("another content than was written")
            with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
                rows = {name: arrays[name] for name in receipt["metrics"]}
            return rows, {name: Missing(**why) for name, why in receipt["missing"].items()}
        except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
            raise ArtifactError(
                expected=f"measurements at {self.files.array}", got=str(error), remedy="run again: that range is measured again"
            ) from error

    def remove(self) -> None:
        """The receipt first, so that a half-removed part does not count."""
        self.files.record.unlink(missing_ok=True)
        self.files.array.unlink(missing_ok=True)
