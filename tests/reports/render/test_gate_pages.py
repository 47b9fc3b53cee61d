"""The gate's summaries."""

from __future__ import annotations

from collections.abc import Callable
from xml.etree import ElementTree

from harness.storage.records import Run
from reports.analysis.gate import GateResult, GateRow, GateVerdict, gate
from reports.render.gate_pages import gate_junit, gate_markdown, gate_text

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
