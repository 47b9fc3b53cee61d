"""The history out of and into other programs: one JSON file, or a folder of three Parquet tables.

JSON: ``{"kind": ..., "format": ..., "runs": [...]}``, a run as :meth:`harness.history.store.History.exported` gives it. Parquet:
``runs`` (a row for each run, with every record that is JSON), ``scores`` (a row for each score and null control, with its values
per image) and ``timings`` (a row for each timed call, a copy for other programs). Both carry everything, so that either can be
read back. Importing is idempotent, and a record that no longer has the digest of its id is
refused before anything is written.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from harness.errors import ArtifactError, UsageError
from harness.history.packing import ARRAYS, INTERVALS, RECORDS, outline, run_id, unpack
from harness.history.store import COLUMNS, TAG, History
from harness.storage.documents import MOST_PARSED, parse_json, parsed_bytes
from harness.storage.files import MIB, write_bytes
from harness.storage.layout import PER_IMAGE, VALUES, is_control, is_score
from harness.storage.records import FORMAT, Run, check_format, read_json
from harness.storage.tables import column_names, read_columns

KIND = "ilf-bench history"
RUNS_BYTES = 128 * MIB  # of all records of an export in Parquet, without their arrays
Row = dict[str, Any]


def export_history(history: History, target: Path) -> int:
    """Write every run to ``target`` (``.json``, or ``.parquet`` for a folder) and return how many there are."""
    runs = list(history.exported())
    if _kind(target) == "json":
        text = json.dumps({"kind": KIND, "format": FORMAT, "runs": runs}, allow_nan=False)
        write_bytes(target, text.encode())
    else:
        _write_parquet(target, runs)
    return len(runs)


@dataclass(frozen=True)
class Imported:
    """How many ``runs`` an export holds, and its tags that name other runs here and were ``not_taken``."""

    runs: int
    not_taken: tuple[str, ...]


def import_history(history: History, source: Path) -> Imported:
    """Add every run of an export that is not there yet, and its tags where no other run has them: whom a tag names is for the
    history's owner to say."""
    runs = _read_json(source) if _kind(source) == "json" else _read_parquet(source)
    checked = [_checked(run, source) for run in runs]
    not_taken: list[str] = []
    for run, tags in checked:
        identity = history.append(run, tags, keep=True)
        held = history.tagged()
        not_taken += [tag for tag in tags if held.get(tag) != identity]
    return Imported(len(checked), tuple(dict.fromkeys(not_taken)))


def _kind(path: Path) -> str:
    kind = path.suffix.lower().lstrip(".")
    if kind not in ("json", "parquet"):
        raise UsageError(expected="a name that ends with .json or .parquet", got=str(path), remedy="name such a file")
    return kind


def _checked(exported: Row, source: Path) -> tuple[Run, tuple[str, ...]]:
    """The run and its tags, after recomputing its identity."""
    try:
        identity, packed = str(exported["id"]), outline(exported["record"])
        tags = exported["tags"]
        if not isinstance(tags, list) or not all(isinstance(tag, str) for tag in tags):
            raise TypeError(f"tags that are no list of texts: {str(tags)[:100]!r}")
    except (KeyError, TypeError, ValueError) as error:
        raise ArtifactError(expected=f"exported runs in {source}", got=repr(error), remedy="export the history again") from error
    run = unpack(packed)
    if run_id(run) != identity:
        raise ArtifactError(
            expected=f"the record with the digest {identity} in {source}",
            got="another record: it was altered after the export",
            remedy="export the history again",
        )
    if bad := [tag for tag in tags if not TAG.fullmatch(tag)]:
        raise ArtifactError(expected=f"tags in {source}", got=repr(bad[0]), remedy="export the history again")
    return run, tuple(tags)


def _read_json(source: Path) -> list[Row]:
    content = read_json(source)
    if not isinstance(content, dict) or content.get("kind") != KIND or not isinstance(content.get("runs"), list):
        raise ArtifactError(
            expected=f"an export of a history at {source}", got="another file", remedy="ilf-bench export FILE.json"
        )
    check_format(content, str(source))
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
        arrow.parquet.write_table(table.replace_schema_metadata({"kind": KIND, "format": str(FORMAT)}), sink)
        write_bytes(target / f"{name}.parquet", sink.getvalue().to_pybytes())


def _schema(arrow: Any) -> dict[str, dict[str, Any]]:
    text, real, whole = arrow.string(), arrow.float64(), arrow.int64()
    kinds = {str: text, int: whole}
    return {
        "runs": {"id": text, **{n: kinds[k] for n, k in COLUMNS.items()}, "tags": arrow.list_(text), "record": text},
        "scores": {
            "run_id": text,
            "record": text,
            "control": arrow.bool_(),
            "method": text,
            "metric": text,
            "value": real,
            "low": real,
            "high": real,
            "n": whole,
            "reason": text,
            VALUES: arrow.list_(real),
            PER_IMAGE: arrow.list_(real),
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
            "copy_s": real,
            "energy_j": real,
            "reserved_bytes": whole,
            "text_bytes": whole,
            "denoise_bytes": whole,
            "decode_bytes": whole,
        },
    }


def _run(run: Row) -> Row:
    record = run["record"] | {ARRAYS: [entry[:4] for entry in run["record"][ARRAYS]]}
    return run | {"record": json.dumps(record, sort_keys=True)}


def _scores(runs: list[Row]) -> Iterator[Row]:
    """A row for each score and null control; its arrays in columns of their own."""
    for run in runs:
        record = run["record"]
        arrays: dict[str, Row] = {}
        for name, key, _, _, values in record[ARRAYS]:
            arrays.setdefault(name, {})[key] = [float(value) for value in values]
        for name, content in record[RECORDS].items():
            if is_score(name):
                low, high = record[INTERVALS].get(name) or (None, None)
                shown = {column: content.get(column) for column in ("method", "metric", "value", "n", "reason")}
                yield (
                    {"run_id": run["id"], "record": name, "control": is_control(name), "low": low, "high": high}
                    | shown
                    | arrays.get(name, {})
                )


def _timings(runs: list[Row]) -> Iterator[Row]:
    """A row for each timed call; its round says whether it was a warm-up."""
    for run in runs:
        found = unpack(outline(run["record"]))
        yield from (asdict(call) | {"run_id": run["id"]} for call in (*found.warmups, *found.timings, *found.other_batches))


def _read_parquet(source: Path) -> list[Row]:
    arrow = _pyarrow()
    try:
        _, _, metadata = column_names(source / "runs.parquet")
        if metadata.get(b"kind") != KIND.encode():
            raise ValueError(f"metadata {metadata}")
        check_format({"format": int(metadata[b"format"])} if b"format" in metadata else {}, str(source))
        runs = read_columns(source / "runs.parquet", ("id", "tags", "record"), RUNS_BYTES)
        scores = read_columns(source / "scores.parquet", ("run_id", "record", VALUES, PER_IMAGE))
        column_names(source / "timings.parquet")  # whose times lie in the record already
        return list(_joined(runs, scores))
    except (OSError, KeyError, TypeError, ValueError, arrow.ArrowException) as error:
        raise ArtifactError(
            expected=f"runs, scores and timings of an export in {source}",
            got=str(error),
            remedy="ilf-bench export FOLDER.parquet",
        ) from error


def _joined(runs: Mapping[str, list[Any]], scores: Mapping[str, list[Any]]) -> Iterator[Row]:
    """Runs with the values of their scores put back into the record."""
    places = {name: i for i, name in enumerate(zip(scores["run_id"], scores["record"], strict=True))}
    total = 0
    for identity, tags, text in zip(*(runs[name] for name in ("id", "tags", "record")), strict=True):
        total += parsed_bytes(content := text.encode())
        if total > MOST_PARSED:
            raise ValueError(f"records that would take more than {MOST_PARSED >> 20} MiB")
        record = parse_json(content)
        arrays = [[*entry, scores[entry[1]][places[identity, entry[0]]]] for entry in record[ARRAYS]]
        yield {"id": identity, "tags": tags, "record": record | {ARRAYS: arrays}}
