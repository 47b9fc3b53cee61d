"""The paper's table: its structure, its escapes, and what may be bold."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from harness.storage.records import Run
from reports.render.escape import tex_text
from reports.render.latex import best_of, latex_table
from reports.render.tables import comparison_table

Make = Callable[..., Run]
METHODS = {
    "full": (20, 480, 1.0, 10.0),
    "8 steps": (8, 192, 0.4, 8.0),
    "cache_a": (20, 250, 0.5, 9.0),
    "cache_b": (20, 260, 0.5, 7.0),
}


def rows(text: str) -> list[list[str]]:
    return [re.split(r"(?<!\\) & ", line.removesuffix(r" \\")) for line in text.splitlines() if line.endswith(r"\\")]


def test_a_row_a_method_and_a_column_a_quantity(make_run: Make) -> None:
    run = make_run(methods=METHODS, noise=0.0)
    text = latex_table(run, comparison_table(run))
    assert [text.count(rule) for rule in (r"\toprule", r"\midrule", r"\bottomrule")] == [1, 2, 1]
    assert text.count(r"\begin{") == text.count(r"\end{") == 2 and r"\begin{tabular}{lrrrrr}" in text
    header, *body = rows(text)
    assert {len(row) for row in (header, *body)} == {6}
    assert header[-1] == r"Far score\,$\downarrow$" and header[-2] == r"Good score\,$\uparrow$"
    assert [row[0] for row in body] == ["full", "8 steps", r"cache\_a", r"cache\_b"]
    assert body[1][1:4] == ["$192$", "$0.400$", "$2.50$"]
    assert re.fullmatch(r"\$10\.00 \\pm 0\.\d\d\$", body[0][4])


def test_braces_balance_whatever_the_names(make_run: Make) -> None:
    nasty = "a}{\\%$#&_^~<>|[x]"
    run = make_run(methods=METHODS | {nasty: (8, 192, 0.4, 8.0)})
    text = latex_table(run, comparison_table(run))
    depth = 0
    for sign in re.findall(r"(?<!\\)[{}]", text.replace(r"\\", "")):
        depth += 1 if sign == "{" else -1
        assert depth >= 0
    assert depth == 0
    assert all(not re.search(r"(?<!\\)[#&_%]", cell) for row in rows(text) for cell in row)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("100% of A_B", r"100\% of A\_B"),
        ("Δ-DiT", r"$\Delta$-DiT"),
        ("ε", "U+03B5"),
        ("naïve\tä", "naïve ä"),
        ("🙂", "U+1F642"),
        ("\\x", r"\textbackslash{}x"),
    ],
)
def test_escapes(text: str, expected: str) -> None:
    assert tex_text(text) == expected


def test_only_a_surely_best_method_is_bold(make_run: Make) -> None:
    run = make_run(methods=METHODS)
    assert best_of(run, list(METHODS), "good") == "cache_a"
    assert re.search(r"cache\\_a & .*\\mathbf\{9\.0", latex_table(run, comparison_table(run)))
    close = make_run("close", methods=METHODS | {"cache_long": (20, 260, 0.5, 9.001)})
    assert best_of(close, [*METHODS, "cache_long"], "good") is None
    _, *body = rows(latex_table(close, comparison_table(close)))
    assert not any("mathbf" in row[4] for row in body)


def test_what_is_missing_is_a_dash_and_no_number(make_run: Make) -> None:
    run = make_run(methods=METHODS, missing=(("8 steps", "good"),), failed_methods=(("broken", "no such block"),), rounds=0)
    _, *body = rows(latex_table(run, comparison_table(run)))
    found = {row[0]: row for row in body}
    assert found["broken"][1:] == ["--"] * 5 and found["8 steps"][4] == "--" and found["full"][2:4] == ["--", "--"]
