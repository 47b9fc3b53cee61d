"""Columns of Parquet tables from strangers: a page of one value may stand for gigabytes, so nothing is expanded uncounted.

Texts are read as dictionaries and numbers, which take no more memory than the file's own sizes say; what they would become as
Python objects is known before they do. A file whose page headers do not fit its footer may still take more.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

from harness.storage.files import MIB, open_regular

TABLE_BYTES = 256 * MIB  # of the columns that are read, as Python objects
NUMBER, TEXT, LIST = 40, 80, 64  # bytes of an element of a Python list, and of its place, beside the letters of a text


def column_names(path: Path) -> tuple[list[str], list[str], dict[bytes, bytes]]:
    """The columns of texts and whole numbers, all columns, and the metadata of a table.

    Raises ImportError without pyarrow, OSError or pyarrow's ArrowException on another file.
    """
    import pyarrow
    from pyarrow import parquet

    with open_regular(path) as file, parquet.ParquetFile(file) as table:
        schema = table.schema_arrow
        plain = [f.name for f in schema if pyarrow.types.is_integer(f.type) or _is_text(f.type)]
        return plain, list(schema.names), dict(schema.metadata or {})


def read_columns(path: Path, names: Collection[str], most: int = TABLE_BYTES) -> dict[str, list[Any]]:
    """These columns of numbers, texts, and lists of either. Raises as :func:`column_names`, KeyError where one is missing, and
    ValueError where they are of other types, or would take more than ``most`` bytes."""
    from pyarrow import parquet

    with open_regular(path) as file:
        with parquet.ParquetFile(file) as table:
            leaves = _check(table, names, most)
        with parquet.ParquetFile(file, read_dictionary=leaves) as table:
            found: dict[str, list[Any]] = {name: [] for name in names}
            total = 0
            for group in range(table.num_row_groups):
                read = table.read_row_group(group, columns=list(names), use_threads=False)
                total += sum(_cost(chunk) for column in read.columns for chunk in column.chunks)
                if total > most:
                    raise ValueError(f"columns that would take more than {most // MIB} MiB")
                for name, values in found.items():
                    values += read.column(name).to_pylist()
    return found


def _check(table: Any, names: Collection[str], most: int) -> list[str]:
    """What the footer says of these columns; returns the paths of their texts."""
    footer, schema = table.metadata, table.schema_arrow
    for name in names:
        if schema.names.count(name) != 1:
            raise KeyError(name)
        if not _is_read(schema.field(name).type):
            raise ValueError(f"a column {name} of {schema.field(name).type}")
    leaves = [i for i in range(footer.num_columns) if footer.schema.column(i).path.partition(".")[0] in names]
    chunks = [footer.row_group(group).column(i) for group in range(footer.num_row_groups) for i in leaves]
    if sum(chunk.total_uncompressed_size for chunk in chunks) + 8 * sum(chunk.num_values for chunk in chunks) > most:
        raise ValueError(f"columns of more than {most // MIB} MiB")
    return [footer.schema.column(i).path for i in leaves if footer.schema.column(i).physical_type == "BYTE_ARRAY"]


def _is_text(kind: Any) -> bool:
    from pyarrow import types

    return bool(types.is_string(kind) or types.is_large_string(kind) or (types.is_dictionary(kind) and _is_text(kind.value_type)))


def _is_read(kind: Any) -> bool:
    from pyarrow import types

    if types.is_list(kind) or types.is_large_list(kind):
        return _is_read(kind.value_type)
    return _is_text(kind) or bool(
        types.is_binary(kind) or types.is_integer(kind) or types.is_floating(kind) or types.is_boolean(kind)
    )


def _cost(array: Any) -> int:
    """Bytes of an Arrow array as a Python list."""
    from pyarrow import compute, types

    if types.is_list(array.type) or types.is_large_list(array.type):
        return len(array) * LIST + _cost(array.flatten())
    if not types.is_dictionary(array.type):
        return len(array) * NUMBER + (array.nbytes if not types.is_primitive(array.type) else 0)
    lengths = compute.binary_length(array.dictionary).cast("int64").take(array.indices)
    return len(array) * TEXT + (compute.sum(lengths).as_py() or 0)
