"""Numbers that others published, read from files that name their source. They are no scores: nothing here compares them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from harness.config.spec import Anchor
from harness.errors import UsageError
from harness.paths import ROOT
from harness.results import Direction
from harness.storage.documents import PRESET_BYTES, parse_yaml
from harness.storage.files import read_small
from harness.storage.records import Run

FOLDER = ROOT / "presets" / "published"


@dataclass(frozen=True)
class PublishedNumber:
    """One number as its source prints it: ``value`` in ``unit``, of ``method`` on ``model`` (a preset's name)."""

    source: str
    device: str
    model: str
    method: str
    metric: str
    title: str
    unit: str
    direction: Direction
    value: float
    steps: int | None
    block_evaluations: float | None

    @property
    def label(self) -> str:
        """The method with its step count."""
        return self.method if self.steps is None else f"{self.method} ({self.steps} steps)"


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _Column(_Strict):
    metric: str = Field(min_length=1)
    title: str = Field(min_length=1)
    unit: str
    direction: Direction


class _Row(_Strict):
    model: str = Field(min_length=1)
    method: str = Field(min_length=1)
    steps: int | None = Field(None, ge=1)
    block_evaluations: float | None = Field(None, gt=0, allow_inf_nan=False)
    values: tuple[float | None, ...]


class _Table(_Strict):
    source: str = Field(min_length=1)
    device: str = ""
    columns: tuple[_Column, ...]
    rows: tuple[_Row, ...]

    @model_validator(mode="after")
    def _full_rows(self) -> _Table:
        for row in self.rows:
            if len(row.values) != len(self.columns):
                raise ValueError(f"{row.model}, {row.method}: {len(self.columns)} columns but {len(row.values)} values")
        return self

    def numbers(self) -> list[PublishedNumber]:
        """Every value that is given; ``null`` stands where the source has none."""
        return [
            PublishedNumber(
                self.source,
                self.device,
                row.model,
                row.method,
                c.metric,
                c.title,
                c.unit,
                c.direction,
                value,
                row.steps,
                row.block_evaluations,
            )
            for row in self.rows
            for c, value in zip(self.columns, row.values, strict=True)
            if value is not None
        ]


def read_published(path: Path) -> list[PublishedNumber]:
    """The numbers of one file: a YAML list of tables, laid out as presets/published/ has them. Raises :class:`UsageError`."""
    try:
        content = parse_yaml(read_small(path, PRESET_BYTES))
        tables = TypeAdapter(tuple[_Table, ...]).validate_python(content)
    except (OSError, ValueError) as error:
        raise UsageError(
            expected=f"tables of published numbers in {path}", got=str(error), remedy="see presets/published"
        ) from error
    return [number for table in tables for number in table.numbers()]


def anchor_sentence(run: Run) -> str:
    """The published number that the preset's full run should come near, with its source; empty where the record has none."""
    recorded = run.environment.get("anchor")
    if not isinstance(recorded, Mapping):
        return ""
    try:
        return f"Published for the full run: {Anchor(**recorded).text}."
    except ValidationError:
        return f"Published for the full run, in a form that this version does not know: {dict(recorded)}."


def published_for(run: Run, files: Sequence[Path] | None = None) -> list[PublishedNumber]:
    """What was published for the model of a run's preset: from ``files``, or from those that ship with the product."""
    chosen = sorted(FOLDER.glob("*.yaml")) if files is None else files
    return [number for path in chosen for number in read_published(path) if number.model == run.spec["name"]]
