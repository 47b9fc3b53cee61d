"""A gate's result for a terminal, as Markdown for a pull request, and as JUnit XML for a build server."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from xml.etree import ElementTree

from rich import box
from rich.table import Table
from rich.text import Text

from harness.terminal import terminal_text
from harness.text import one_line
from reports.analysis.changes import MEMORY, METHOD, SPEED, WALL
from reports.analysis.gate import PRECEDENCE, GateResult, GateRow, GateVerdict
from reports.render.escape import markdown_text, xml_text
from reports.render.grouped import reason_lines

MARKS = {
    GateVerdict.PASS: "✅",
    GateVerdict.FAIL: "❌",
    GateVerdict.INCONCLUSIVE: "❔",
    GateVerdict.NOT_MEASURED: "⚠️",
}
MOST_FAILED = 5  # that a summary shows whole
NORMALISED = (
    "speed: seconds per image over the baseline's, each relative to the fixed workload where both runs timed it; memory: peak"
    " over the baseline's peak; scores: differences, held against their margins."
)
TAGS = {GateVerdict.FAIL: "failure", GateVerdict.NOT_MEASURED: "error", GateVerdict.INCONCLUSIVE: "skipped"}


def gate_text(result: GateResult) -> str:
    """One line a check, the notes, then the verdict."""
    names = [one_line(f"{row.method}  {row.check}") for row in result.rows]
    width = max(map(len, names), default=0)
    lines = [f"{r.verdict.value:<12}  {name:<{width}}  {one_line(_why(r))}" for r, name in zip(result.rows, names, strict=True)]
    notes = [one_line(note) for note in result.notes]
    return "\n".join([*lines, *notes, f"gate: {result.verdict.value} (exit code {result.exit_code})"]) + "\n"


def gate_parts(result: GateResult) -> Iterator[Table | Text]:
    """What fits a screen: one line a method, what failed and what was not measured, and the verdict with its count of checks."""
    methods = list(dict.fromkeys(row.method for row in result.rows if row.short))
    yield terminal_text(one_line(f"{result.current} against {result.baseline}"))
    if methods:
        yield _summary(result, methods)
    failed = [row for row in result.rows if row.verdict is GateVerdict.FAIL]
    lines = [f"FAIL: {row.check} of {row.method}: {_why(row)}" for row in failed[:MOST_FAILED]]
    lines += [f"and {len(failed) - MOST_FAILED} more that fail"] if len(failed) > MOST_FAILED else []
    missing = [row for row in result.rows if row.verdict is GateVerdict.NOT_MEASURED and row.counted]
    reasons = reason_lines([(row.method, row.check, row.text) for row in missing], methods)
    lines += [f"NOT-MEASURED: {line}" for line in reasons]
    lines += result.notes
    if any(row.check == SPEED and row.short for row in result.rows):
        lines.append(NORMALISED)
    lines.append(_closing(result))
    yield from (terminal_text(one_line(line)) for line in lines)


def _summary(result: GateResult, methods: list[str]) -> Table:
    table = Table("verdict", "method", "speed", "memory", "scores", box=box.SIMPLE_HEAD, pad_edge=False)
    for method in methods:
        rows = [row for row in result.rows if row.method == method]
        found = {row.verdict for row in rows if row.counted or row.verdict is GateVerdict.FAIL}
        worst = next(verdict for verdict in PRECEDENCE if verdict in found)
        scores = [row for row in rows if row.check not in (SPEED, WALL, MEMORY, METHOD) and row.counted]
        costs = [_cost(rows, check) for check in (SPEED, MEMORY)]
        table.add_row(*map(terminal_text, [worst.value, method, *costs, _tally(scores)]))
    return table


def _cost(rows: list[GateRow], check: str) -> str:
    row = next((row for row in rows if row.check == check), None)
    if row is None or not row.short:
        return "–"
    return row.short if row.verdict is GateVerdict.PASS else f"{row.short} {row.verdict.value}"


def _tally(rows: Sequence[GateRow]) -> str:
    """For example ``6 PASS, 1 FAIL``."""
    count = {verdict: sum(row.verdict is verdict for row in rows) for verdict in GateVerdict}
    return ", ".join(f"{n} {verdict.value}" for verdict, n in count.items() if n) or "–"


def _closing(result: GateResult) -> str:
    verdict, counted = result.verdict, [row for row in result.rows if row.counted or row.verdict is GateVerdict.FAIL]
    open_ = sum(row.verdict is GateVerdict.INCONCLUSIVE for row in counted)
    help_ = " More rounds or images would decide what is inconclusive." if open_ else ""
    tally = f"; {len(counted)} checks: {_tally(counted)}. --details shows each." if any(row.short for row in counted) else ""
    return f"gate: {verdict.value} (exit code {result.exit_code}){tally}{help_ if tally else ''}"


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
