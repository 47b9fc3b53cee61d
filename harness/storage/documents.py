"""JSON and YAML of a bounded size in memory: a small file must not become a large structure."""

from __future__ import annotations

import json
import re
from typing import Any

import yaml

MOST_PARSED = 768 * 2**20  # bytes; more than any record, manifest or export of this project takes
# bytes of a Python dict, list, half a string, an element in either, and a pair before it is in its dict
COSTS = {b"{": 200, b"[": 72, b'"': 34, b",": 40, b":": 72}
HALF_LETTER = re.compile(rb"\\u[dD][89a-fA-F]")
BRACKETS = 300  # of a YAML file: its parser takes time with the square of their depth
PRESET_BYTES = 128 * 2**10  # of a YAML file; ours have 3 KiB


def parsed_bytes(content: bytes) -> int:
    """At most how much memory the value of a JSON text takes."""
    return 2 * len(content) + sum(content.count(sign) * cost for sign, cost in COSTS.items())


def parse_json(content: bytes) -> Any:
    """The value of a JSON text. Raises :class:`ValueError` on any other text, and before parsing what would fill the memory."""
    if parsed_bytes(content) > MOST_PARSED:
        raise ValueError(f"JSON that would take more than {MOST_PARSED >> 20} MiB")
    try:
        value = json.loads(content, object_pairs_hook=_object)
    except RecursionError as error:
        raise ValueError("JSON that is nested too deeply") from error
    if HALF_LETTER.search(content):
        json.dumps(value, ensure_ascii=False).encode()  # raises where it is no half of a whole letter
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object whose keys differ: of two with one name, the first would be lost."""
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f"the key {twice[:100]!r} twice in one object")
    return found


class _PlainLoader(yaml.SafeLoader):
    """YAML without anchors, aliases and merge keys, by which a few lines stand for billions."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        event = self.peek_event()  # type: ignore[no-untyped-call]
        if getattr(event, "anchor", None) is not None:
            raise yaml.MarkedYAMLError(None, None, "anchors and aliases are not used here", event.start_mark)
        return super().compose_node(parent, index)


def parse_yaml(content: bytes) -> Any:
    """The value of a YAML text without anchors and aliases. Raises :class:`ValueError` on any other text."""
    if content.count(b"[") + content.count(b"{") > BRACKETS:
        raise ValueError(f"more than {BRACKETS} opening brackets")
    try:
        loader = _PlainLoader(content.decode("utf-8-sig"))
        return loader.get_single_data()
    except RecursionError as error:
        raise ValueError("YAML that is nested too deeply") from error
    except (yaml.YAMLError, OverflowError, LookupError, AttributeError) as error:  # the last three: of odd numbers and dates
        raise ValueError(str(error)) from error
