"""The files of a report: safe, self-contained, in agreement with each other and the same on every build."""

from __future__ import annotations

import base64
import csv
import hashlib
import html
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from harness.errors import ArtifactError
from harness.statistics.description import STATISTICS
from harness.storage.records import Run, read_run
from reports.analysis.select import Sample
from reports.format import interval_text, number, plus_minus
from reports.render.build import build_paper, build_report
from reports.render.cells import STAGE_COLUMNS
from reports.render.grid import choose
from reports.render.tables import comparison_table
from reports.render.words import TINY_WARNING


@pytest.fixture(scope="module")
def page(report_folder: Path) -> str:
    return (report_folder / "index.html").read_text()


@pytest.fixture(scope="module")
def paper_folder(report_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_paper(report_folder.parent, tmp_path_factory.mktemp("paper"))


def text_of(page: str) -> str:
    """Visible text of the page, entities resolved and white space joined."""
    body = re.sub(r"<(style|script)[^>]*>.*?</\1>", " ", page, flags=re.DOTALL)
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", body)).split())


def test_what_came_from_the_run_is_escaped(page: str) -> None:
    assert "&lt;b&gt;x&lt;/b&gt;" in page and "<b>x</b>" not in page
    assert "Tiny &lt;i&gt;text&lt;/i&gt;" in page and "<i>text</i>" not in page


@pytest.mark.parametrize(("name", "local"), [("index.html", "gallery.html"), ("gallery.html", "../samples/")])
def test_nothing_is_loaded_from_outside(report_folder: Path, name: str, local: str) -> None:
    page = (report_folder / name).read_text()
    sources = re.findall(r"(?:src|srcset|href)=\"([^\"]*)\"", page)
    assert sources and all(source.startswith(("data:", "#", "index.html", local)) for source in sources)
    inside = {source[1:] for source in sources if source.startswith("#")}
    assert inside <= set(re.findall(r"\sid=\"([^\"]*)\"", page))
    assert "url(" not in page and "@import" not in page and not re.search(r"https?://", page)
    assert not re.search(r"\sstyle=|\son[a-z]+=|javascript:", page)


@pytest.mark.parametrize("name", ["index.html", "gallery.html"])
def test_the_policy_names_the_one_style_sheet_and_the_one_script(report_folder: Path, name: str) -> None:
    page = (report_folder / name).read_text()
    policy = html.unescape(re.findall(r'Content-Security-Policy" content="([^"]*)"', page)[0])
    assert "default-src 'none'" in policy and "unsafe" not in policy and "*" not in policy
    for kind, tag in (("style", "style"), ("script", "script")):
        (body,) = re.findall(rf"<{tag}>(.*?)</{tag}>", page, flags=re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(body.encode()).digest()).decode()
        assert f"{kind}-src 'sha256-{digest}'" in policy


def test_the_page_says_that_scorers_are_tiny(page: str, report_folder: Path) -> None:
    assert TINY_WARNING in page
    assert TINY_WARNING in (report_folder / "report.md").read_text()


def test_the_page_says_what_is_computed(page: str) -> None:
    words = text_of(page)
    assert all(text in words for text in STATISTICS.values()) and "ratios of medians" not in words


def test_no_warning_without_tiny_scorers(make_run: Callable[..., Run]) -> None:
    assert TINY_WARNING not in build_report(make_run(tiny=False).path).read_text()


def test_reasons_of_failures_are_shown_everywhere(page: str, report_folder: Path) -> None:
    for reason in ("the good scorer ran out of memory", "expected 12 blocks | got <11>"):
        assert reason in text_of(page)
        with (report_folder / "report.csv").open() as file:
            assert reason in {row["failure"] for row in csv.DictReader(file)}
    assert "expected 12 blocks \\| got &lt;11>" in (report_folder / "report.md").read_text()


def test_markdown_and_page_show_the_same_cells(page: str, report_folder: Path) -> None:
    visible, markdown = text_of(page), (report_folder / "report.md").read_text()
    table = comparison_table(read_run(report_folder.parent))
    shown = {column.key for column in (*table.columns, *table.metrics, *STAGE_COLUMNS)}
    numbers = [cell.text for row in table.rows for key, cell in row.cells.items() if key in shown and cell.value is not None]
    assert len(numbers) > 40
    for text in numbers:
        assert text in visible and text in markdown


def test_csv_carries_the_numbers_of_the_page(page: str, report_folder: Path) -> None:
    visible = text_of(page)
    with (report_folder / "report.csv").open() as file:
        rows = list(csv.DictReader(file))
    scores = [row for row in rows if row["quantity"] in ("good", "far") and row["value"]]
    assert len(scores) == 7
    for row in scores:
        assert plus_minus(float(row["value"]), float(row["high"]) - float(row["value"])) in visible
    times = [row for row in rows if row["quantity"] == "latency_s" and row["value"]]
    assert [row["unit"] for row in times] == ["s per image"] * 5
    assert all(f"{number(float(row['value']))} s" in visible for row in times)


def test_markdown_rows_all_have_as_many_cells_as_their_heading(report_folder: Path) -> None:
    width = 0
    for line in (report_folder / "report.md").read_text().splitlines():
        if not line.startswith("|"):
            width = 0
            continue
        found = len(re.findall(r"(?<!\\)\|", line))
        width = width or found
        assert found == width, line


def test_the_answer_is_in_plain_words(page: str) -> None:
    visible = text_of(page)
    assert "Is it better than fewer steps at equal cost?" in visible
    assert "ilf(steps=10) yes" in visible
    assert "Against 12 steps or 8 steps for 50% of the images" in visible


def test_paper_has_vector_figures_a_table_and_samples(paper_folder: Path) -> None:
    figures = {f"{m}-{c}.{k}" for m in ("good", "far") for c in ("seconds", "block") for k in ("pdf", "svg")}
    assert {path.name for path in paper_folder.iterdir()} == figures | {"samples.png", "table.tex"}
    svg, pdf = (paper_folder / "good-seconds.svg").read_text(), (paper_folder / "good-seconds.pdf").read_bytes()
    assert svg.startswith("<?xml") and f'width="{3.3 * 72:.1f}'.rstrip("0") in svg
    assert "<text" not in svg and "<image" not in svg  # letters are outlines, and nothing is a bitmap
    assert b"/FontFile2" in pdf and b"/Type3" not in pdf
    with Image.open(paper_folder / "samples.png") as grid:
        assert grid.size[0] > 4 * 128


def test_two_builds_are_equal(make_run: Callable[..., Run]) -> None:
    run, built = make_run(methods={"full": (20, 480, 1.0, 10.0), "8 steps": (8, 192, 0.4, 8.0)}, rounds=0), []
    for _ in range(2):
        build_report(run.path), build_paper(run.path)
        built.append({path: path.read_bytes() for path in (run.path / "report").rglob("*.*")})
    assert len(built[0]) == 4 + 2 * 2 + 2 and built[0] == built[1]


def test_partial_and_untimed_runs_still_report(make_run: Callable[..., Run]) -> None:
    run = make_run(rounds=0, complete=False)
    page = text_of(build_report(run.path).read_text())
    assert "This run is not finished" in page
    assert "not timed in this run" in page
    assert "block evaluations per image" in page


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"no spec\.json"):
        build_report(tmp_path)


def test_grid_prefers_different_prompts() -> None:
    row = {i: Sample(i, "ab"[i // 10] if i < 20 else "c", Path()) for i in range(30)}
    assert [s.index for s in choose([row])] == [0, 1, 2, 3, 4, 5, 10, 20]


def test_numbers_as_text() -> None:
    from harness.statistics import Interval

    assert [number(v) for v in (0, 0.03061, 1.5, 123456.0, -2.0)] == ["0", "0.0306", "1.50", "123456", "−2.00"]
    assert plus_minus(27.9714, 0.3612) == "27.97 ± 0.36"
    assert plus_minus(1.0, float("inf")) == "1.00 (no interval: N = 1)"
    assert interval_text(Interval(-0.5, -0.62, -0.38), signed=True) == "−0.50 [−0.62, −0.38]"
