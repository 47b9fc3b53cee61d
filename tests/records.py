"""Records of methods that never ran, for synthetic runs: what a method is follows here from its label alone."""

from __future__ import annotations

import re
from typing import Any

from harness.results import BASELINE, Kind, MethodPart, MethodRecord
from harness.sampling.solvers import SOLVERS

NAMED: dict[str, Kind] = {
    "ilf": "learned",
    "ilf-adapter": "learned",
    "bespoke": "learned",
    "int8": "precision",
    "fp8": "precision",
    "compile": "compilation",
    "spacing": "timesteps",
}


def method_record(label: str, blocks: float | None, **changes: Any) -> MethodRecord:
    """A method that ran ``blocks`` evaluations as predicted, or has not run. Labels and texts of presets are both understood."""
    parts = tuple(_part(text.strip()) for text in re.split(r" \+ |\+(?=\w+:)", label))
    kind = parts[0].kind if len(parts) == 1 else "composition"
    given: dict[str, Any] = {"steps": 20, "predicted_block_evaluations": blocks, "block_evaluations": blocks, "solver": "dpm++"}
    for part in parts:
        given |= {"steps": part.options["steps"]} if "steps" in part.options else {}
        given |= {"solver": part.options["name"]} if part.kind == "solver" else {}
        given |= {"spacing": part.options["power"]} if part.kind == "timesteps" else {}
    return MethodRecord(label, label, kind, parts=parts, **given | changes)


def _part(text: str) -> MethodPart:
    name = re.split(r"[:=(,\s]", text, maxsplit=1)[0]
    number = re.search(r"[\d.]+", text)
    if text == BASELINE:
        return MethodPart(name, "full")
    if re.fullmatch(r"(steps:)?\d+( steps)?", text):
        return MethodPart("steps", "fewer steps", {"steps": int(number[0]) if number else 0})
    solver = text.removeprefix("solver:")
    if solver in SOLVERS:
        return MethodPart("solver", "solver", {"name": solver})
    if name == "spacing":
        return MethodPart(name, "timesteps", {"power": number[0] if number else ""})
    options = {"checkpoint": name if name != "ilf" else None} if name.startswith("ilf") else {}
    options |= {"steps": int(number[0])} if number and name.startswith("ilf") else {}
    return MethodPart("ilf" if options else name, NAMED.get(name, "less work per step"), options)
