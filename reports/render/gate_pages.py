"""A gate's result for a terminal, as Markdown for a pull request, and as JUnit XML for a build server."""

from __future__ import annotations

import re
from xml.etree import ElementTree

from reports.analysis.gate import GateResult, GateRow, GateVerdict

MARKUP = re.compile(r"([\\`*_\[\]{}()#+!|~>-])")
NOT_XML = re.compile(r"[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")  # XML 1.0 has no way to write these
MARKS = {
    GateVerdict.PASS: "✅",
    GateVerdict.FAIL: "❌",
    GateVerdict.INCONCLUSIVE: "❔",
    GateVerdict.NOT_MEASURED: "⚠️",
}
TAGS = {GateVerdict.FAIL: "failure", GateVerdict.NOT_MEASURED: "error", GateVerdict.INCONCLUSIVE: "skipped"}


def gate_text(result: GateResult) -> str:
    """One line a check, the notes, then the verdict."""
    width = max((len(f"{r.method}  {r.check}") for r in result.rows), default=0)
    lines = [f"{r.verdict.value:<12}  {f'{r.method}  {r.check}':<{width}}  {_why(r)}" for r in result.rows]
    return "\n".join([*lines, *result.notes, f"gate: {result.verdict.value} (exit code {result.exit_code})"]) + "\n"


def gate_markdown(result: GateResult) -> str:
    """The verdict, what did not pass, the notes, and every check in a folded table."""
    count = {verdict: sum(row.verdict is verdict for row in result.rows) for verdict in GateVerdict}
    tally = ", ".join(f"{n} {verdict.value}" for verdict, n in count.items() if n)
    lines = [f"## Gate: {result.verdict.value} {MARKS[result.verdict]}", ""]
    lines += [f"{escape(result.current)} against {escape(result.baseline)}: {tally or 'nothing was checked'}.", ""]
    open_rows = [row for row in result.rows if row.verdict is not GateVerdict.PASS]
    lines += _table(open_rows) if open_rows else []
    lines += [*(f"- {escape(note)}" for note in result.notes), ""] if result.notes else []
    lines += ["<details><summary>Every check</summary>", "", *_table(result.rows), "</details>"]
    return "\n".join(lines) + "\n"


def gate_junit(result: GateResult) -> str:
    """One test case a check: FAIL is a failure, NOT-MEASURED an error, INCONCLUSIVE and what does not count are skipped."""
    kinds = [_kind(row) for row in result.rows]
    counts = {"failures": kinds.count("failure"), "errors": kinds.count("error"), "skipped": kinds.count("skipped")}
    attributes = {"name": "ilf-bench gate", "tests": str(len(kinds))} | {name: str(n) for name, n in counts.items()}
    suite = ElementTree.Element("testsuite", attributes)
    for row, kind in zip(result.rows, kinds, strict=True):
        case = ElementTree.SubElement(suite, "testcase", classname=_xml(row.method), name=_xml(row.check))
        if kind:
            ElementTree.SubElement(case, kind, message=_xml(f"{row.verdict.value}: {_why(row)}"))
        else:
            ElementTree.SubElement(case, "system-out").text = _xml(row.text)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ElementTree.tostring(suite, encoding="unicode") + "\n"


def _kind(row: GateRow) -> str:
    kind = TAGS.get(row.verdict, "")
    return kind if row.counted or kind in ("", "failure") else "skipped"


def _why(row: GateRow) -> str:
    return row.text if row.counted or row.text.startswith("not counted") else f"counts only where it fails: {row.text}"


def _table(rows: tuple[GateRow, ...] | list[GateRow]) -> list[str]:
    lines = ["| Method | Check | Verdict | Why |", "| --- | --- | --- | --- |"]
    lines += [f"| {escape(r.method)} | {escape(r.check)} | {r.verdict.value} | {escape(_why(r))} |" for r in rows]
    return [*lines, ""]


def escape(text: str) -> str:
    """Text that Markdown shows as it stands, on one line; it mentions nobody."""
    plain = " ".join(text.replace("&", "&amp;").replace("<", "&lt;").split())
    return MARKUP.sub(r"\\\1", plain).replace("@", "&#64;")


def _xml(text: str) -> str:
    return NOT_XML.sub("\ufffd", text)
