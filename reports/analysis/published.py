"""Numbers that others published, read from files that name their source. They are no scores: nothing here compares them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from harness.config.anchors import Anchor, Protocol
from harness.errors import UsageError
from harness.paths import ROOT
from harness.results import Direction
from harness.storage.documents import PRESET_BYTES, parse_yaml
from harness.storage.files import read_small
from harness.storage.records import Run

FOLDER = ROOT / "presets" / "published"


@dataclass(frozen=True)
class PublishedNumber:
    """One number as its source prints it: ``value`` in ``unit``, of ``method`` on ``model`` (a preset's name).

    ``baseline``: the value of the table's own baseline row in the same column, None where the number compares with the baseline's
    images itself (``paired``). ``factor`` makes our score comparable (100 for ImageReward x 100); ``ours`` is the label, or the
    text in a preset, of the method here that does the same.
    """

    source: str
    model: str
    method: str
    metric: str
    title: str
    unit: str
    direction: Direction
    value: float
    baseline_method: str
    baseline: float | None
    paired: bool
    factor: float
    ours: str
    block_evaluations: float | None
    protocol: Protocol

    @property
    def label(self) -> str:
        """The method with its step count."""
        return self.method if self.protocol.steps is None else f"{self.method} ({self.protocol.steps} steps)"

    @property
    def is_baseline(self) -> bool:
        """Whether it stands in the row that the table's others are held against."""
        return self.method == self.baseline_method


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _Column(_Strict):
    metric: str = Field(min_length=1)
    title: str = Field(min_length=1)
    unit: str
    direction: Direction
    factor: float = Field(1.0, gt=0, allow_inf_nan=False)
    backbone: str | None = None
    paired: bool = False


class _Row(_Strict):
    model: str = Field(min_length=1)
    method: str = Field(min_length=1)
    ours: str = ""
    steps: int | None = Field(None, ge=1)
    resolution: int | None = Field(None, ge=1)
    block_evaluations: float | None = Field(None, gt=0, allow_inf_nan=False)
    values: tuple[Annotated[float, Field(allow_inf_nan=False)] | None, ...]


class _Table(_Strict):
    """``protocol`` holds for all rows; what a row or a column states goes before it. ``baseline``: the method of each model's."""

    source: str = Field(min_length=1)
    protocol: Protocol = Protocol()
    baseline: str = Field(min_length=1)
    columns: tuple[_Column, ...] = Field(min_length=1)
    rows: tuple[_Row, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _whole(self) -> _Table:
        for row in self.rows:
            if len(row.values) != len(self.columns):
                raise ValueError(f"{row.model}, {row.method}: {len(self.columns)} columns but {len(row.values)} values")
        for model in dict.fromkeys(row.model for row in self.rows):
            found = [row for row in self.rows if (row.model, row.method) == (model, self.baseline)]
            if len(found) != 1:
                raise ValueError(f"{model}: {len(found)} baseline rows {self.baseline!r} instead of one")
            self._check_baseline(found[0])
        return self

    def _check_baseline(self, baseline: _Row) -> None:
        """A paired column is null in the baseline row, and every other one has a number there to differ from."""
        for column, value in zip(self.columns, baseline.values, strict=True):
            others = [row for row in self.rows if row.model == baseline.model and row is not baseline]
            used = any(row.values[self.columns.index(column)] is not None for row in others)
            if used and (value is None) != column.paired:
                missing = "has a value, though the column is paired" if column.paired else "has no value"
                raise ValueError(f"{baseline.model}, {column.title}: the baseline row {self.baseline!r} {missing}")

    def numbers(self) -> list[PublishedNumber]:
        """Every value that is given; ``null`` stands where the source has none."""
        baselines = {row.model: row.values for row in self.rows if row.method == self.baseline}
        return [
            self._number(row, column, value, baselines[row.model][i])
            for row in self.rows
            for i, (column, value) in enumerate(zip(self.columns, row.values, strict=True))
            if value is not None
        ]

    def _number(self, row: _Row, column: _Column, value: float, baseline: float | None) -> PublishedNumber:
        own = {"steps": row.steps, "resolution": row.resolution, "backbone": column.backbone}
        known = {name: given for name, given in own.items() if given is not None}
        return PublishedNumber(
            source=self.source,
            model=row.model,
            method=row.method,
            metric=column.metric,
            title=column.title,
            unit=column.unit,
            direction=column.direction,
            value=value,
            baseline_method=self.baseline,
            baseline=baseline,
            paired=column.paired,
            factor=column.factor,
            ours=row.ours,
            block_evaluations=row.block_evaluations,
            protocol=self.protocol.model_copy(update=known),
        )


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


def anchors_of(run: Run) -> tuple[list[Anchor], list[str]]:
    """The published numbers that the preset's full run should come near, and sentences about what cannot be read of them."""
    recorded = run.environment.get("anchors")
    found: list[Anchor] = []
    strange: list[str] = []
    for one in recorded if isinstance(recorded, Sequence) and not isinstance(recorded, str) else ():
        try:
            found.append(Anchor.model_validate(one))
        except ValidationError:
            strange.append(f"Published for the full run, in a form that this version does not know: {one}.")
    return found, strange


def published_of(model: str, files: Sequence[Path] | None = None) -> list[PublishedNumber]:
    """What was published for a preset's model: from ``files``, or from those that ship with the product."""
    known = _shipped() if files is None else tuple(number for path in files for number in read_published(path))
    return [number for number in known if number.model == model]


@cache
def _shipped() -> tuple[PublishedNumber, ...]:
    """Read once: a report asks several times."""
    return tuple(number for path in sorted(FOLDER.glob("*.yaml")) for number in read_published(path))


def published_for(run: Run, files: Sequence[Path] | None = None) -> list[PublishedNumber]:
    """What was published for the model of a run's preset."""
    return published_of(str(run.spec["name"]), files)
