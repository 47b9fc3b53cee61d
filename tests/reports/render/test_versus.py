"""Two runs side by side."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace

import pytest
from rich.console import Console

from harness.errors import ArtifactError
from harness.storage.records import Run
from reports.analysis.findings import Finding
from reports.render.versus import versus, versus_table, word

Make = Callable[..., Run]


def words(a: Run, b: Run, check: str) -> set[str]:
    return {word(row) for row in versus(a, b) if isinstance(row, Finding) and row.change.check == check}


def test_slower_and_worse_are_named(make_run: Make) -> None:
    a, b = make_run("a"), make_run("b", slowdown=1.2, shift=-1.0, timing_seed=1)
    assert words(a, b, "speed") == {"worse"} and words(b, a, "speed") == {"better"}
    assert words(a, a, "memory") == {"the same"} and words(a, a, "speed") == {"can't tell"}
    heavy = replace(b, timings=tuple(replace(t, peak_memory_bytes=2_000_000) for t in b.timings))
    assert words(a, heavy, "memory") == {"up"}


def test_mixed_machines_and_fingerprints_are_refused(make_run: Make) -> None:
    a, b = make_run("a"), make_run("b", machine="another", fingerprint="bb")
    with pytest.raises(ArtifactError, match="different machines: another and machine-1"):
        versus(a, b)
    console = Console(width=250, file=io.StringIO())
    c = make_run("c", machine="another")
    console.print(versus_table(a, c, versus(a, c)))
    said = console.file.getvalue()  # type: ignore[attr-defined]
    assert "not compared: different machines" in said and "fingerprints" not in said
    d = make_run("d", fingerprint="bb")
    console.print(versus_table(a, d, versus(a, d)))
    assert "refused: fingerprints differ in weights" in console.file.getvalue()  # type: ignore[attr-defined]


def test_markup_in_names_stays_text(make_run: Make) -> None:
    methods = {"full": (20, 480.0, 1.0, 10.0), "[red]x[/red] <b>": (8, 192.0, 0.4, 8.0)}
    a, b = make_run("a", methods=methods), make_run("b", methods=methods)
    console = Console(width=250, file=io.StringIO())
    console.print(versus_table(a, b, versus(a, b)))
    assert "[red]x[/red] <b>" in console.file.getvalue()  # type: ignore[attr-defined]
