"""JSON, YAML and prompt lists: what would become large in memory is refused before it does."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.config.prompts import load_prompts
from harness.config.spec import load_spec
from harness.errors import UsageError
from harness.storage.documents import parse_json, parse_yaml, parsed_bytes
from tests.security.crafted import MIB, bounded

JSON = {
    "lists": b"[" + b"[]," * 500_000 + b"[]]",
    "objects": b"[" + b"{}," * 500_000 + b"{}]",
    "pairs": b"[" + b'{"a":0},' * 200_000 + b"{}]",
    "texts": b"[" + b",".join(b'"%x"' % i for i in range(400_000)) + b"]",
    "keys": b"{" + b",".join(b'"%d":0' % i for i in range(300_000)) + b"}",
    "numbers": b"[" + b"1.5," * MIB + b"0]",
    "wide letters": b'["' + "\U0001f600".encode() * MIB + b'"]',
}


@pytest.mark.parametrize("kind", JSON)
def test_no_json_takes_more_memory_than_is_estimated(kind: str) -> None:
    with bounded(mib=parsed_bytes(JSON[kind]) / MIB):
        parse_json(JSON[kind])


@pytest.mark.parametrize("content", [b"[]," * (20 * MIB), b"[" * 100_000, b"1" * 10_000, b"\xff", b""])
def test_other_json_is_refused(content: bytes) -> None:
    with bounded(), pytest.raises(ValueError, match=r"."):
        parse_json(content)


def laughs(merge: bool) -> str:
    """Nine levels of ten: as aliases a page stands for a billion entries, as merge keys for as many pairs."""
    lines = ["a0: &a0 {x: y}" if merge else "a0: &a0 [x, x]"]
    for i in range(1, 10):
        aliases = ", ".join([f"*a{i - 1}"] * 10)
        lines.append(f"a{i}: &a{i} {{<<: [{aliases}]}}" if merge else f"a{i}: &a{i} [{aliases}]")
    return "\n".join(lines)


YAML = {
    "merge keys": laughs(merge=True),
    "aliases": laughs(merge=False),
    "a loop": "x: &a [*a]",
    "nesting": "- " * 40_000,
    "a tag of Python": "a: !!python/object/apply:os.system [id]",
    "base 60": "a: 1:" + "59:" * 40_000 + "1",
    "a date": "a: 9999-99-99",
    "binary": "a: !!binary ###",
    "a list as a key": "? [a]\n: b",
    "a zero byte": "\x00",
    "a directive": "%TAG ! x",
    "ten megabytes": "a: b\n" * (2 * MIB),
}


@pytest.mark.parametrize("kind", YAML)
def test_an_odd_preset_is_one_message(kind: str, tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text(YAML[kind])
    with bounded(), pytest.raises(UsageError) as caught:
        load_spec(str(tmp_path / "x.yaml"))
    assert len(str(caught.value)) < 4_000


def test_plain_yaml_is_read_whole() -> None:
    text = b"a: [1, 2.5, x, null, true]\nb: {c: 'd & e *'}\n"
    assert parse_yaml(text) == {"a": [1, 2.5, "x", None, True], "b": {"c": "d & e *"}}


PROMPTS = {
    "lines.txt": b"a\n" * (40 * MIB),
    "quote.csv": b'prompt\n"' + b"a" * (90 * MIB),
    "columns.csv": b"prompt," * (10 * MIB) + b"\n",
    "lists.json": b"[" + b"[]," * (30 * MIB) + b"[]]",
    "nesting.jsonl": b"[" * (10 * MIB),
    "numbers.json": b"[" + b"1," * (20 * MIB) + b"1]",
    "long.txt": b"a" * (90 * MIB),
    "zero.txt": b"a\0b",
}


@pytest.mark.parametrize("name", PROMPTS)
def test_an_odd_prompt_list_is_one_message(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(PROMPTS[name])
    with bounded(), pytest.raises(UsageError) as caught:
        load_prompts(str(tmp_path / name))
    assert len(str(caught.value)) < 4_000


def test_the_measure_sees_what_takes_more() -> None:
    with pytest.raises(AssertionError, match="MiB"), bounded(mib=64):
        assert len(b"1" * (200 * MIB)) > 0
