"""Parquet tables from strangers are counted before they become Python objects; tags of an import move none."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from harness.config.prompts import load_prompts
from harness.errors import ArtifactError, UsageError
from harness.history.export import export_history, import_history
from harness.history.store import History
from harness.storage.tables import read_columns
from ilf_bench.cli import main
from tests.runs import make_run
from tests.security.crafted import bounded

pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")


@pytest.fixture
def history(tmp_path: Path) -> History:
    made = History(tmp_path / "runs" / "history.sqlite")
    made.append(make_run(tmp_path / "runs" / "a", 1), ("base", "new"))
    return made


@pytest.mark.parametrize("groups", [1, 50])
def test_a_prompt_list_of_one_long_prompt_fills_no_memory(groups: int, tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    table = pyarrow.table({"prompt": pyarrow.array(["x" * 9000] * (100_000 // groups))})
    with parquet.ParquetWriter(path, table.schema, compression="zstd") as writer:
        for _ in range(groups):
            writer.write_table(table)
    del table
    assert path.stat().st_size < 2**20
    with bounded(), pytest.raises(UsageError, match="MiB"):
        load_prompts(str(path))


def test_lists_of_numbers_and_texts_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    rows: dict[str, list[Any]] = {"texts": [["ab", "c"], []], "numbers": [[1.5], None], "plain": [1, 2]}
    parquet.write_table(pyarrow.table(rows), path)
    assert read_columns(path, list(rows)) == rows
    parquet.write_table(pyarrow.table({"texts": [["x" * 1_000_000] * 900]}), path)
    with bounded(), pytest.raises(ValueError, match="MiB"):
        read_columns(path, ["texts"])


@pytest.mark.parametrize("table", ["runs", "scores"])
def test_an_export_of_repeated_values_fills_no_memory(table: str, history: History, tmp_path: Path) -> None:
    export_history(history, tmp_path / "e.parquet")
    path = tmp_path / "e.parquet" / f"{table}.parquet"
    whole = parquet.read_table(path)
    one = whole.slice(0, 1)
    if table == "scores":
        values = pyarrow.array([[0.0] * 200_000], one.schema.field("influence").type)
        one = one.set_column(one.schema.get_field_index("influence"), one.schema.field("influence"), values)
    else:
        record = pyarrow.array(["[" + "0," * 500_000 + "0]"])
        one = one.set_column(one.schema.get_field_index("record"), one.schema.field("record"), record)
    with parquet.ParquetWriter(path, whole.schema, compression="zstd") as writer:
        for _ in range(20):
            writer.write_table(pyarrow.concat_tables([one] * 40).combine_chunks())
    del whole, one
    with bounded(), pytest.raises(ArtifactError, match="MiB"):
        import_history(history, tmp_path / "e.parquet")


@pytest.mark.parametrize("kind", ["json", "parquet"])
def test_an_import_moves_no_tag(kind: str, history: History, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    own = History(tmp_path / "own" / "history.sqlite")
    mine = own.append(make_run(tmp_path / "own" / "b", 2), ("base",))
    export_history(history, tmp_path / f"e.{kind}")
    assert main(["import", str(tmp_path / f"e.{kind}"), "--out", str(tmp_path / "own")]) == 0
    said = capsys.readouterr().out
    assert "stay with these: base;" in said and "1 runs" in said
    assert own.find("base").run_id == mine and own.find("new").run_id != mine
    assert import_history(own, tmp_path / f"e.{kind}").not_taken == ("base",)


@pytest.mark.parametrize("tags", ["abc", None, [1], {"a": 1}, [["a"]]])
def test_tags_that_are_no_list_of_texts_are_refused(tags: Any, history: History, tmp_path: Path) -> None:
    export_history(history, tmp_path / "e.json")
    content = json.loads((tmp_path / "e.json").read_text())
    content["runs"][0]["tags"] = tags
    (tmp_path / "e.json").write_text(json.dumps(content))
    with pytest.raises(ArtifactError, match="exported runs"):
        import_history(History(tmp_path / "other.sqlite"), tmp_path / "e.json")
