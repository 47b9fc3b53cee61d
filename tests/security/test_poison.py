"""One poisonous run through every output there is: each shows its texts, and none of them does anything."""

from __future__ import annotations

import csv
import http.server
import json
import re
import threading
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from harness.history.store import History
from harness.storage.records import Run
from ilf_bench.cli import main
from reports.render.build import build_paper, build_report
from tests.reports.conftest import browser  # noqa: F401
from tests.security.poison import MARK, REASON, folder_name, later_run, poisoned_run, texts
from tests.security.test_text import rendered

HOST = "http://203.0.113.1"  # nobody's: RFC 5737
LOADING = ("src", "href", "srcset", "action", "data", "xlink:href")
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Run, Run]:
    """The folder of both, with a history."""
    out = tmp_path_factory.mktemp("runs") / folder_name()
    first = poisoned_run(out / "first", HOST)
    second = later_run(out / "second", first)
    for run in (first, second):
        History(out / "history.sqlite").append(run)
    return out, first, second


class Tags(HTMLParser):
    """Every tag, and every attribute that loads something or runs something."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.sources: list[str] = []
        self.handlers: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.handlers += [name for name, _ in attrs if name.startswith("on")]
        self.sources += [
            value or "" for name, value in attrs if name in ("src", "href", "srcset", "action", "data", "xlink:href")
        ]


def check_html(page: Path) -> None:
    text = page.read_text()
    found = Tags()
    found.feed(text)
    assert not found.handlers and "iframe" not in found.tags and "object" not in found.tags
    assert not [source for source in found.sources if re.match(r"(?i)\s*(https?:|//|javascript:|ftp:)", source)], found.sources
    assert "default-src &#39;none&#39;" in text or "default-src 'none'" in text
    assert f"<script>{MARK}" not in text and "SECRETKEY" not in text and "49" not in re.findall(r"\{\{.*?\}\}", text)


def test_pages(runs: tuple[Path, Run, Run], tmp_path: Path) -> None:
    out, first, _ = runs
    page = build_report(first.path)
    check_html(page)
    check_html(page.parent / "gallery.html")
    assert main(["history", "--html", str(tmp_path / "history.html"), "--out", str(out)]) == 0
    check_html(tmp_path / "history.html")


def test_markdown(runs: tuple[Path, Run, Run], tmp_path: Path) -> None:
    out, first, second = runs
    build_report(first.path)
    main(["gate", str(second.path), "--against", str(first.path), "--markdown", str(tmp_path / "gate.md"), "--out", str(out)])
    for page in (first.path / "report" / "report.md", tmp_path / "gate.md"):
        text = page.read_text()
        html = rendered(text.replace("<details><summary>Every check</summary>", "").replace("</details>", ""))
        tags = set(re.findall(r"<(\w+)", html))
        assert not tags & {"img", "a", "script", "svg", "image", "code", "em", "del", "details"}, tags
        assert "SECRETKEY" not in text and not CONTROL.search(text) and not re.search(r"(?<!&#58;)https?://", text)


def test_csv(runs: tuple[Path, Run, Run]) -> None:
    first = runs[1]
    build_report(first.path)
    rows = list(csv.reader((first.path / "report" / "report.csv").read_text().splitlines()))
    numbers = re.compile(r"-?\d[\d.e+-]*|-?inf|")
    assert len({len(row) for row in rows}) == 1
    for row in rows[1:]:
        for cell in row:
            assert not CONTROL.search(cell)
            assert cell.lstrip()[:1] not in ("=", "+", "-", "@") or numbers.fullmatch(cell), cell


def test_latex_and_figures(runs: tuple[Path, Run, Run]) -> None:
    folder = build_paper(runs[1].path)
    text = (folder / "table.tex").read_text()
    assert text.isascii() and not re.search(r"\\(input|write|def|catcode)", text)
    assert [file for file in folder.glob("*.svg")]
    for file in folder.glob("*.svg"):
        for element in ElementTree.parse(file).iter():
            assert not element.tag.endswith(("script", "image", "foreignObject")), file
            assert not [k for k in element.attrib if k.lower().startswith("on")]
            assert all(not v.startswith(("http", "//", "javascript")) for k, v in element.attrib.items() if k.endswith("href"))


def test_xml(runs: tuple[Path, Run, Run], tmp_path: Path) -> None:
    out, first, second = runs
    main(["gate", str(second.path), "--against", str(first.path), "--junit", str(tmp_path / "gate.xml"), "--out", str(out)])
    suite = ElementTree.parse(tmp_path / "gate.xml").getroot()
    assert {element.tag for element in suite.iter()} <= {"testsuite", "testcase", "failure", "error", "skipped", "system-out"}
    assert {case.get("classname") for case in suite.iter("testcase")} >= set(texts(HOST))


def test_terminal(runs: tuple[Path, Run, Run], capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    out, first, second = runs
    commands = [
        ["report", str(first.path)],
        ["history"],
        ["compare", str(first.path), str(second.path)],
        ["gate", str(second.path), "--against", str(first.path)],
        ["power", str(first.path)],
        ["bundle", str(first.path), str(tmp_path / "b.zip")],
        ["verify", str(tmp_path / "b.zip")],
        ["verify", str(first.path)],
        ["export", str(tmp_path / "e.json")],
        ["tag", "x", str(first.path)],
    ]
    for command in commands:
        takes_out = command[0] not in ("report", "bundle")
        code = main([*command, *(["--out", str(out)] if takes_out else [])])
        said = "".join(capsys.readouterr())
        assert code in (0, 1, 2, 3), (command, said)
        assert not CONTROL.search(said) and "SECRETKEY" not in said and "Traceback" not in said, command
        verdicts = [line for line in said.splitlines() if line.startswith("gate:")]
        assert len(verdicts) == (command[0] == "gate"), command


def test_an_export_holds_the_texts_as_they_are(runs: tuple[Path, Run, Run], tmp_path: Path) -> None:
    """It is for other programs."""
    assert main(["export", str(tmp_path / "e.json"), "--out", str(runs[0])]) == 0
    records = json.loads((tmp_path / "e.json").read_text())["runs"][0]["record"]["records"]
    assert REASON in {content.get("reason") for content in records.values() if isinstance(content, dict)}


class Listener(http.server.BaseHTTPRequestHandler):
    """Notes every request."""

    reached: list[str] = []  # noqa: RUF012

    def do_GET(self) -> None:
        self.reached.append(self.path)
        self.send_response(200)
        self.end_headers()

    do_POST = do_GET

    def log_message(self, *arguments: Any) -> None:
        pass


@pytest.fixture
def listener() -> Iterator[str]:
    Listener.reached.clear()
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Listener)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()


@pytest.mark.browser
def test_a_browser_contacts_nobody_and_runs_nothing(browser: Any, listener: str, tmp_path: Path) -> None:  # noqa: F811
    """The last page is the control: without our pages' care the same texts do run and do ask."""
    out = tmp_path / "runs"
    run = poisoned_run(out / "first", listener)
    History(out / "history.sqlite").append(run)
    page = build_report(run.path)
    assert main(["history", "--html", str(tmp_path / "history.html"), "--out", str(out)]) == 0
    for shown in (page, page.parent / "gallery.html", tmp_path / "history.html"):
        browser.get(shown.as_uri())
        browser.execute_script("for (const e of document.querySelectorAll('button, summary, input, option')) e.click()")
        browser.execute_async_script("setTimeout(arguments[0], 300)")
        assert browser.execute_script(f"return typeof window.{MARK}") == "undefined", shown
        assert Listener.reached == [], shown
    (tmp_path / "careless.html").write_text("".join(texts(listener)))
    browser.get((tmp_path / "careless.html").as_uri())
    browser.execute_async_script("setTimeout(arguments[0], 500)")
    assert browser.execute_script(f"return window.{MARK}") == 1 and Listener.reached
