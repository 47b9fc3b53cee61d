"""The history out of and into other programs: one JSON file, or a folder of three Parquet tables.

JSON: ``{"kind": ..., "version": ..., "runs": [...]}``, a run as :meth:`harness.history.store.History.exported` gives it. Parquet:
``runs`` (a row a run), ``scores`` (a row a score, with its values an image) and ``timings`` (a row a timed call). Both carry
everything, so that either can be read back. Importing is idempotent, and a record that no longer has the digest of its id is
refused before anything is written.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from harness.errors import ArtifactError, UsageError
from harness.history.packing import Packed, outline, run_id, unpack
from harness.history.schema import SCHEMA_VERSION, SUMMARY
from harness.history.store import COLUMNS, TAG, History
from harness.storage.files import write_bytes
from harness.storage.records import read_json

KIND = "ilf-bench history"
TABLES = ("runs", "scores", "timings")
Row = dict[str, Any]


def export_history(history: History, target: Path) -> int:
    """Write every run to ``target`` (``.json``, or ``.parquet`` for a folder) and return how many there are."""
    runs = list(history.exported())
    if _kind(target) == "json":
        text = json.dumps({"kind": KIND, "version": SCHEMA_VERSION, "runs": runs}, allow_nan=False)
        write_bytes(target, text.encode())
    else:
        _write_parquet(target, runs)
    return len(runs)


def import_history(history: History, source: Path) -> int:
    """Add every run of an export that is not there yet; returns how many the export holds."""
    runs = _read_json(source) if _kind(source) == "json" else _read_parquet(source)
    checked = [_checked(run, source) for run in runs]
    for identity, row, packed, tags in checked:
        history.insert(identity, row, packed, tags)
    return len(checked)


def _kind(path: Path) -> str:
    kind = path.suffix.lower().lstrip(".")
    if kind not in ("json", "parquet"):
        raise UsageError(expected="a name that ends with .json or .parquet", got=str(path), remedy="name such a file")
    return kind


def _checked(run: Row, source: Path) -> tuple[str, tuple[Any, ...], Packed, tuple[str, ...]]:
    """Columns, record and tags of one exported run, after recomputing its identity."""
    try:
        identity, packed = str(run["id"]), outline(run["record"])
        columns = tuple(kind(run[name]) for name, kind in COLUMNS.items())
        tags = tuple(str(tag) for tag in run["tags"])
        whole = SUMMARY not in run["record"]
    except (KeyError, TypeError, ValueError) as error:
        raise ArtifactError(expected=f"exported runs in {source}", got=repr(error), remedy="export the history again") from error
    if whole and run_id(unpack(packed)) != identity:
        raise ArtifactError(
            expected=f"the record with the digest {identity} in {source}",
            got="another: it was altered after the export",
            remedy="export the history again",
        )
    if bad := [tag for tag in tags if not TAG.fullmatch(tag)]:
        raise ArtifactError(expected=f"tags in {source}", got=repr(bad[0]), remedy="export the history again")
    return identity, columns, packed, tags


def _read_json(source: Path) -> list[Row]:
    content = read_json(source)
    if not isinstance(content, dict) or content.get("kind") != KIND or not isinstance(content.get("runs"), list):
        raise ArtifactError(
            expected=f"an export of a history at {source}", got="another file", remedy="ilf-bench export FILE.json"
        )
    if content.get("version") != SCHEMA_VERSION:
        raise ArtifactError(
            expected=f"an export of version {SCHEMA_VERSION} at {source}",
            got=f"version {content.get('version')}",
            remedy="export it again with this version",
        )
    return list(content["runs"])


def _pyarrow() -> Any:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise UsageError(
            expected="pyarrow for .parquet", got="none installed", remedy='pip install "ilf-bench[parquet]"'
        ) from error
    return pyarrow


def _write_parquet(target: Path, runs: list[Row]) -> None:
    """Three files, each written whole before it gets its name; ``runs`` comes last, so that a cut export has none."""
    arrow = _pyarrow()
    tables = {"scores": list(_scores(runs)), "timings": list(_timings(runs)), "runs": [_run(run) for run in runs]}
    for name, rows in tables.items():
        columns = {column: [row.get(column) for row in rows] for column in (_schema(arrow)[name])}
        table = arrow.table(columns, schema=arrow.schema(list(_schema(arrow)[name].items())))
        sink = arrow.BufferOutputStream()
        arrow.parquet.write_table(table.replace_schema_metadata({"kind": KIND, "version": str(SCHEMA_VERSION)}), sink)
        write_bytes(target / f"{name}.parquet", sink.getvalue().to_pybytes())


def _schema(arrow: Any) -> dict[str, dict[str, Any]]:
    text, real, whole = arrow.string(), arrow.float64(), arrow.int64()
    kinds = {str: text, int: whole}
    return {
        "runs": {"id": text, **{n: kinds[k] for n, k in COLUMNS.items()}, "tags": arrow.list_(text), "record": text},
        "scores": {
            "run_id": text,
            "method": text,
            "metric": text,
            "value": real,
            "low": real,
            "high": real,
            "n": whole,
            "reason": text,
            "per_image": arrow.list_(real),
            "content": text,
        },
        "timings": {
            "run_id": text,
            "method": text,
            "round": whole,
            "batch": whole,
            "latency_s": real,
            "text_s": real,
            "denoise_s": real,
            "decode_s": real,
            "peak_memory_bytes": whole,
            "compile_s": real,
            "clock_mhz": whole,
            "temperature_c": whole,
            "power_w": real,
            "throttled": text,
            "cpu_s": real,
        },
    }


def _run(run: Row) -> Row:
    record = {name: value for name, value in run["record"].items() if name not in ("scores", "timings")}
    return run | {"record": json.dumps(record, sort_keys=True)}


def _scores(runs: list[Row]) -> Iterator[Row]:
    for run in runs:
        for score in run["record"]["scores"]:
            content = {name: value for name, value in score.items() if name != "per_image"}
            yield score | {"run_id": run["id"], "content": json.dumps(content, sort_keys=True)}


def _timings(runs: list[Row]) -> Iterator[Row]:
    for run in runs:
        yield from (timing | {"run_id": run["id"]} for timing in run["record"]["timings"])


def _read_parquet(source: Path) -> list[Row]:
    arrow = _pyarrow()
    try:
        tables = {name: arrow.parquet.read_table(source / f"{name}.parquet") for name in TABLES}
        metadata = tables["runs"].schema.metadata or {}
        if (metadata.get(b"kind"), metadata.get(b"version")) != (KIND.encode(), str(SCHEMA_VERSION).encode()):
            raise ValueError(f"metadata {metadata}")
        return list(_joined({name: table.to_pylist() for name, table in tables.items()}))
    except (OSError, KeyError, TypeError, ValueError, arrow.ArrowException) as error:
        raise ArtifactError(
            expected=f"runs, scores and timings of an export of version {SCHEMA_VERSION} in {source}",
            got=str(error),
            remedy="ilf-bench export FOLDER.parquet",
        ) from error


def _joined(tables: Mapping[str, list[Row]]) -> Iterator[Row]:
    """Runs with their scores and timings put back into the record."""
    scores: dict[str, list[Row]] = {row["id"]: [] for row in tables["runs"]}
    timings: dict[str, list[Row]] = {row["id"]: [] for row in tables["runs"]}
    for row in tables["scores"]:
        values = {} if row["per_image"] is None else {"per_image": row["per_image"]}
        scores[row["run_id"]].append(json.loads(row["content"]) | values)
    for row in tables["timings"]:
        timings[row["run_id"]].append({n: v for n, v in row.items() if v is not None and n != "run_id"})
    for row in tables["runs"]:
        yield row | {"record": json.loads(row["record"]) | {"scores": scores[row["id"]], "timings": timings[row["id"]]}}
