"""A gate's result for a terminal, as Markdown for a pull request, and as JUnit XML for a build server."""

from __future__ import annotations

from xml.etree import ElementTree

from harness.text import one_line
from reports.analysis.gate import GateResult, GateRow, GateVerdict
from reports.render.escape import markdown_text, xml_text

MARKS = {
    GateVerdict.PASS: "✅",
    GateVerdict.FAIL: "❌",
    GateVerdict.INCONCLUSIVE: "❔",
    GateVerdict.NOT_MEASURED: "⚠️",
}
TAGS = {GateVerdict.FAIL: "failure", GateVerdict.NOT_MEASURED: "error", GateVerdict.INCONCLUSIVE: "skipped"}


def gate_text(result: GateResult) -> str:
    """One line a check, the notes, then the verdict."""
    names = [one_line(f"{row.method}  {row.check}") for row in result.rows]
    width = max(map(len, names), default=0)
    lines = [f"{r.verdict.value:<12}  {name:<{width}}  {one_line(_why(r))}" for r, name in zip(result.rows, names, strict=True)]
    notes = [one_line(note) for note in result.notes]
    return "\n".join([*lines, *notes, f"gate: {result.verdict.value} (exit code {result.exit_code})"]) + "\n"


def gate_markdown(result: GateResult) -> str:
    """The verdict, what did not pass, the notes, and every check in a folded table."""
    count = {verdict: sum(row.verdict is verdict for row in result.rows) for verdict in GateVerdict}
    tally = ", ".join(f"{n} {verdict.value}" for verdict, n in count.items() if n)
    lines = [f"## Gate: {result.verdict.value} {MARKS[result.verdict]}", ""]
    lines += [f"{markdown_text(result.current)} against {markdown_text(result.baseline)}: {tally or 'nothing was checked'}.", ""]
    open_rows = [row for row in result.rows if row.verdict is not GateVerdict.PASS]
    lines += _table(open_rows) if open_rows else []
    lines += [*(f"- {markdown_text(note)}" for note in result.notes), ""] if result.notes else []
    lines += ["<details><summary>Every check</summary>", "", *_table(result.rows), "</details>"]
    return "\n".join(lines) + "\n"


def gate_junit(result: GateResult) -> str:
    """One test case a check: FAIL is a failure, NOT-MEASURED an error, INCONCLUSIVE and what does not count are skipped."""
    kinds = [_kind(row) for row in result.rows]
    counts = {"failures": kinds.count("failure"), "errors": kinds.count("error"), "skipped": kinds.count("skipped")}
    attributes = {"name": "ilf-bench gate", "tests": str(len(kinds))} | {name: str(n) for name, n in counts.items()}
    suite = ElementTree.Element("testsuite", attributes)
    for row, kind in zip(result.rows, kinds, strict=True):
        case = ElementTree.SubElement(suite, "testcase", classname=xml_text(row.method), name=xml_text(row.check))
        if kind:
            ElementTree.SubElement(case, kind, message=xml_text(f"{row.verdict.value}: {_why(row)}"))
        else:
            ElementTree.SubElement(case, "system-out").text = xml_text(row.text)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ElementTree.tostring(suite, encoding="unicode") + "\n"


def _kind(row: GateRow) -> str:
    kind = TAGS.get(row.verdict, "")
    return kind if row.counted or kind in ("", "failure") else "skipped"


def _why(row: GateRow) -> str:
    return row.text if row.counted or row.text.startswith("not counted") else f"counts only where it fails: {row.text}"


def _table(rows: tuple[GateRow, ...] | list[GateRow]) -> list[str]:
    lines = ["| Method | Check | Verdict | Why |", "| --- | --- | --- | --- |"]
    lines += [
        f"| {markdown_text(r.method)} | {markdown_text(r.check)} | {r.verdict.value} | {markdown_text(_why(r))} |" for r in rows
    ]
    return [*lines, ""]
