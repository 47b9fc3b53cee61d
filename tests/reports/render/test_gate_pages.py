"""The gate's summaries."""

from __future__ import annotations

import io
from collections.abc import Callable
from xml.etree import ElementTree

from rich.console import Console

from harness.storage.records import Run
from reports.analysis.gate import GateResult, GateRow, GateVerdict, gate
from reports.render.gate_pages import gate_junit, gate_markdown, gate_parts, gate_text

PASS, FAIL, INCONCLUSIVE, NOT_MEASURED = GateVerdict


def test_markdown_shows_what_did_not_pass_first(make_run: Callable[..., Run]) -> None:
    text = gate_markdown(gate(make_run("a", slowdown=1.2), make_run("b")))
    head, folded = text.split("<details>")
    assert head.startswith("## Gate: FAIL")
    assert "| full | speed | FAIL |" in head and "memory" not in head
    assert "| full | memory | PASS |" in folded


def test_junit_has_a_case_for_every_check() -> None:
    rows = (
        GateRow("full", "speed", PASS, "fine"),
        GateRow("full", "memory", FAIL, "too much"),
        GateRow("<a> & b", "fid", NOT_MEASURED, "no scorer"),
        GateRow("full", "psnr", NOT_MEASURED, "not counted, none", False),
        GateRow("full", "wall clock", INCONCLUSIVE, "noisy", False),
        GateRow("x\x00y", "ssim", INCONCLUSIVE, "wide"),
    )
    suite = ElementTree.fromstring(gate_junit(GateResult("a", "b", rows)))
    assert {name: suite.get(name) for name in ("tests", "failures", "errors", "skipped")} == {
        "tests": "6",
        "failures": "1",
        "errors": "1",
        "skipped": "3",
    }
    assert [[child.tag for child in case] for case in suite] == [
        ["system-out"],
        ["failure"],
        ["error"],
        ["skipped"],
        ["skipped"],
        ["skipped"],
    ]
    assert suite[2].get("classname") == "<a> & b" and suite[5].get("classname") == "x\ufffdy"


def test_names_are_no_markup() -> None:
    nasty = "[x](http://e) <img src=x> | @team `c` *b*"
    result = GateResult("a", "b", (GateRow(nasty, "speed", FAIL, nasty),), (nasty,))
    text = gate_markdown(result)
    assert "<img" not in text and "@team" not in text and "[x](" not in text
    rows = [line for line in text.splitlines() if line.startswith("| ") and "FAIL" in line]
    assert all(line.replace("\\|", "").count("|") == 5 for line in rows)
    assert nasty in gate_text(result)


def shown(result: GateResult) -> list[str]:
    console = Console(width=80, file=io.StringIO())
    for part in gate_parts(result):
        console.print(part)
    return console.file.getvalue().splitlines()  # type: ignore[attr-defined,no-any-return]


def test_a_gate_fits_a_screen(make_run: Callable[..., Run]) -> None:
    """One line a method with its worst verdict, what failed whole, and a closing sentence."""
    methods = {"full": (20, 480.0, 1.0, 10.0), "8 steps": (8, 192.0, 0.4, 8.0)}
    base = make_run("b", methods=methods | {"gone": (8, 192.0, 0.4, 8.0)})
    result = gate(make_run("a", methods=methods, slowdown=1.2), base)
    lines = shown(result)
    text = " ".join(" ".join(lines).split())
    assert len(lines) < 24 and max(map(len, lines)) <= 80
    (row,) = (line for line in lines if "8 steps" in line and "×" in line)
    assert row.split()[0] == "FAIL" and "×1.199" in row and row.split()[-4:] == ["FAIL", "×1.000", "2", "PASS"]
    assert text.count("FAIL: speed of ") == 2 and "tolerance 5.0%" in text
    assert "NOT-MEASURED: gone: current: not a method of this run" in text
    assert "gate: FAIL (exit code 1); 9 checks: 6 PASS, 2 FAIL, 1 NOT-MEASURED. --details shows each." in text


def test_a_gate_of_nothing_says_why_and_no_more(make_run: Callable[..., Run]) -> None:
    run = make_run("a")
    lines = shown(gate(run, run))
    assert lines[-1] == "gate: NOT-MEASURED (exit code 3)" and "is the baseline itself" in " ".join(lines)
