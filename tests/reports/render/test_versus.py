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
from reports.render.versus import versus, versus_parts, versus_table, word

Make = Callable[..., Run]


def words(a: Run, b: Run, check: str) -> set[str]:
    return {word(row) for row in versus(a, b) if isinstance(row, Finding) and row.change.check == check}


def test_slower_and_worse_are_named(make_run: Make) -> None:
    a, b = make_run("a"), make_run("b", slowdown=1.2, shift=-1.0, timing_seed=1)
    assert words(a, b, "speed") == {"worse"} and words(b, a, "speed") == {"better"}
    assert words(a, a, "memory") == {"the same"} and words(a, a, "speed") == {"can't tell"}
    assert words(a, _with_memory(b, 2_000_000), "memory") == {"up"}


def _with_memory(run: Run, size: int) -> Run:
    return replace(run, timings=tuple(replace(t, peak_memory_bytes=size) for t in run.timings))


def test_memory_without_an_interval_changes_beyond_the_gates_tolerance_only(make_run: Make) -> None:
    """In either direction, in the table, in what is said of how it was compared, and in the closing sentence."""
    a, b = _with_memory(make_run("a"), 1_000_000), make_run("b")
    for size, said in (
        (996_800, "within 5%"),
        (1_049_000, "within 5%"),
        (953_000, "within 5%"),
        (1_051_000, "up"),
        (951_000, "down"),
    ):
        assert words(a, _with_memory(b, size), "memory") == {said}
    text = " ".join(shown(a, _with_memory(b, 996_800)).split())
    assert "×0.9968 within 5%" in text and "down" not in text.replace("up or down", "")
    assert "without an interval, only more than 5% is called up or down" in text
    assert "No difference from A to B can be told from noise" in text and "4 without an interval are within 5%" in text
    text = " ".join(shown(a, _with_memory(b, 2_000_000)).split())
    assert "B is up in memory of full," in text and "(no interval)" in text and "No difference" not in text


def test_mixed_machines_and_fingerprints_are_refused(make_run: Make) -> None:
    a, b = make_run("a"), make_run("b", machine="another", fingerprint="bb")
    with pytest.raises(ArtifactError, match="different machines: machine key: machine-1 -> another"):
        versus(a, b)
    console = Console(width=250, file=io.StringIO())
    c = make_run("c", machine="another")
    console.print(versus_table(versus(a, c)))
    said = console.file.getvalue()  # type: ignore[attr-defined]
    assert "not compared: different machines" in said and "fingerprints" not in said
    d = make_run("d", fingerprint="bb")
    console.print(versus_table(versus(a, d)))
    assert "refused: fingerprints differ in weights" in console.file.getvalue()  # type: ignore[attr-defined]


def test_markup_in_names_stays_text(make_run: Make) -> None:
    methods = {"full": (20, 480.0, 1.0, 10.0), "[red]x[/red] <b>": (8, 192.0, 0.4, 8.0)}
    a, b = make_run("a", methods=methods), make_run("b", methods=methods)
    console = Console(width=250, file=io.StringIO())
    console.print(versus_table(versus(a, b)))
    assert "[red]x[/red] <b>" in console.file.getvalue()  # type: ignore[attr-defined]


def shown(a: Run, b: Run, *, details: bool = False) -> str:
    console = Console(width=80, file=io.StringIO())
    for part in versus_parts(a, b, versus(a, b), details=details):
        console.print(part)
    return console.file.getvalue()  # type: ignore[attr-defined,no-any-return]


def test_a_comparison_fits_a_screen(make_run: Make) -> None:
    """One line a method; what is missing on one side is one line, and a reason that holds for all is given once."""
    methods = {"full": (20, 480.0, 1.0, 10.0), "8 steps": (8, 192.0, 0.4, 8.0)}
    a = make_run("a", methods=methods | {"old": (8, 192.0, 0.4, 8.0)})
    b = make_run("b", methods=methods | {"new": (8, 192.0, 0.4, 8.0)}, slowdown=1.2, shift=-1.0, timing_seed=1)
    text = shown(a, b)
    lines = text.splitlines()
    assert len(lines) < 24 and max(map(len, lines)) <= 80
    (row,) = (line for line in lines if line.strip().startswith("8 steps"))
    assert "×1.199" in row and row.count("worse") == 2 and "the same" in row
    assert "only in A: old" in lines and "only in B: new" in lines
    assert "not calibrated: no fixed workload in both runs" in " ".join(text.split()), "it says what is normalised"
    assert "good and far: B less A, paired by noise, 64 images" in lines
    assert "B is worse in speed of full, good of full, speed of 8 steps and good of 8 steps" in " ".join(text.split())
    assert "--details shows every check" in " ".join(text.split())
    elsewhere = replace(a, environment={**a.environment, "machine_key": "x", "threads": 1})
    a = replace(a, environment={**a.environment, "threads": 2})
    there = shown(a, elsewhere)
    assert "not compared: speed and memory of every method: different machines: threads: 2 -> 1" in " ".join(there.split())


def test_details_have_every_check_with_its_interval(make_run: Make) -> None:
    a, b = make_run("a"), make_run("b", slowdown=1.2, timing_seed=1)
    text = shown(a, b, details=True)
    assert text.count("speed") > 4 and "[" in text and "--details" not in text and "Holm" in text


def test_equal_runs_are_said_to_be_equal(make_run: Make) -> None:
    """But for the times, which are never exactly the same, nothing has changed; no line says better or worse."""
    text = " ".join(shown(make_run("a"), make_run("b")).split())
    assert (
        "No difference from A to B can be told from noise: 12 checks are exactly the same and of 4 nothing can be told." in text
    )
