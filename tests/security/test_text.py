"""Text from elsewhere in every format it is written in: it shows as it stands and does nothing."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from xml.etree import ElementTree

import pytest
from rich.progress import Progress
from rich.table import Column, Table

from harness.errors import ArtifactError
from harness.terminal import make_console, terminal_text
from harness.text import one_line, said, visible, without_credentials
from reports.render.escape import csv_text, markdown_text, tex_text, xml_text
from tests.security.crafted import bounded

CONTROLS = "\x1b]0;title\x07\x1b[2J\x9b31m\r\n\x00\u202e\u2066\u2028\ud800"


def test_control_characters_are_shown_and_not_obeyed() -> None:
    shown = visible(CONTROLS)
    assert shown.isprintable() and shown.isascii() and "\\x1b" in shown and "\\u202e" in shown and "\\ud800" in shown
    assert visible("naïve 模型 👩‍🎨 ±") == "naïve 模型 👩‍🎨 ±"


def test_a_text_cannot_become_two_lines() -> None:
    assert one_line("a\n\n  gate: PASS\r\x85b\tc") == "a gate: PASS b c"
    assert len(one_line("x" * 10**6)) < 2_100


@pytest.mark.parametrize(
    ("text", "blanked"),
    [
        ("s3://key:secret@bucket/run?x=1", "s3://***@bucket/run?x=1"),
        ("https://me@host/a and ftp://u:p@h", "https://***@host/a and ftp://***@h"),
        ("https://u:p@ss@host/", "https://***@host/"),
        ("gs://b/o?X-Amz-Signature=abc&X-Amz-Credential=AKIA&n=3#f", "gs://b/o?X-Amz-Signature=***&X-Amz-Credential=***&n=3#f"),
        ("'https://h/?api_key=abc' --x", "'https://h/?api_key=***' --x"),
        ("mail me@host, zoo/tiny@2", "mail me@host, zoo/tiny@2"),
        ("https://host/path@2/x?q=1", "https://host/path@2/x?q=1"),
        ("http://host:8080/path@2/x", "http://host:8080/path@2/x"),
        ("s3://AKIA:ab/cd@bucket/x", "s3://***@bucket/x"),
        ("https://u:p#w@h/", "https://***@h/"),
        ("https://u:p?w@h/", "https://***@h/"),
        ("https://u:pa'ss@h/", "https://***@h/"),
        ("https://h/x#access_token=SECRET", "https://h/x#access_token=***"),
        ("https://h/x?code=SECRET&encode=1", "https://h/x?code=***&encode=1"),
        ("https://h/?jwt=SECRET", "https://h/?jwt=***"),
        ("<b>https://h/?token=SECRET</b>", "<b>https://h/?token=***</b>"),
    ],
)
def test_credentials_are_blanked(text: str, blanked: str) -> None:
    assert without_credentials(text) == blanked


@pytest.mark.parametrize("text", ["a" * 10**5 + " :/", "ab:/c:" * 10**4, "x:/?" + "token" * 10**4, "ab://u:" + "p" * 10**5])
def test_credentials_are_looked_for_in_bounded_time(text: str) -> None:
    with bounded():
        without_credentials(text)


def test_an_error_is_one_line_without_credentials_and_without_unsafe_advice() -> None:
    error = ArtifactError(expected="a\nb", got="https://u:p@h/\x1b[2J", remedy="c")
    assert str(error) == "expected a b; got https://***@h/\\x1b[2J; remedy: c"
    for advice in ("set weights_only=False", "pass trust_remote_code=True", "allow_pickle=True", "UnpicklingError: x"):
        assert "never loaded" in said(advice) and "=True" not in said(advice)


def printed(show: object) -> str:
    out = io.StringIO()
    console = make_console(file=out, width=200)
    console.print(show)
    return out.getvalue()


def test_the_console_obeys_no_text_and_reads_no_markup() -> None:
    table = Table(Column(header=terminal_text("a[/b]")), title=terminal_text("[red]x[/]"))
    table.add_row(terminal_text("c\x1b[2J\ngate: PASS"))
    table.add_row("[/nothing] \x9b31m\x1b[2J")
    for shown in (printed(table), printed("/tmp/[bold]x[/bold]\x1b[31m[/nothing]")):
        assert not set(shown) & set("\x1b\x9b\x07\r")
    assert "[red]x[/]" in printed(table) and "a[/b]" in printed(table) and "[bold]x" in printed("/tmp/[bold]x")
    assert not [line for line in printed(table).splitlines() if line.startswith("gate")]


def test_progress_bars_still_move_the_cursor_themselves() -> None:
    out = io.StringIO()
    with Progress(console=make_console(file=out, force_terminal=True, width=80)) as progress:
        progress.add_task("a", total=1, completed=1)
    assert "\x1b[" in out.getvalue() and "\\x1b" not in out.getvalue()


@pytest.mark.parametrize("text", ["=1+1", "+x", "-x", "@SUM(A1)", "  =1", "＝1", '=HYPERLINK("http://h")'])
def test_no_cell_is_a_formula(text: str) -> None:
    assert csv_text(text) == f"'{text}"
    assert csv_text("8 steps + x") == "8 steps + x" and csv_text("\t=1\r\n") == "\\t=1\\r\\n"


INLINE = ["***x***", "__x__", "~~x~~", "`x`", "$x$", "a|b", "&lt;script&gt;", "@all"]
BLOCKS = ["# x", "- x", "+ x", "> x", "1. x", "1) x", "=====", "a\n\n| b |", "<!-- x -->", "<img src=x>", "***", "---"]
LINKS = [
    "![x](http://h/p.png)",
    "[x](javascript:alert(1))",
    "http://h",
    "www.h.org",
    "<https://h>",
    "[x]: http://h",
    "[x][y]",
    "[![x](http://h)](http://h)",
]


def rendered(markdown: str) -> str:
    """HTML as an independent reader of Markdown makes it, with GitHub's links and tables."""
    from markdown_it import MarkdownIt

    return str(MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"]).render(markdown))


@pytest.mark.parametrize("text", [*INLINE, *BLOCKS, *LINKS])
def test_markdown_shows_a_text_as_it_stands(text: str) -> None:
    html = rendered(markdown_text(text))
    assert set(re.findall(r"<(/?\w+)", html)) == {"p", "/p"}, html
    assert not re.search(r"(?i)https?://|www\.|@\w", markdown_text(text))
    assert rendered(f"- {markdown_text(text)}").count("<li>") == 1 and "<h" not in rendered(f"- {markdown_text(text)}")
    table = rendered(f"| a | b |\n| --- | --- |\n| {markdown_text(text)} | y |")
    assert table.count("<td>") == 2


def test_xml_can_hold_what_is_written_into_it() -> None:
    element = ElementTree.Element("a", b=xml_text(CONTROLS))
    assert ElementTree.fromstring(ElementTree.tostring(element)).get("b")


def test_latex_reads_no_command() -> None:
    text = tex_text(r"\input{/etc/passwd}\write18{id}%$^_&#~{}" + CONTROLS)
    assert not re.search(r"\\(input|write)", text) and text.isascii() and "\n" not in text


@pytest.mark.parametrize("write", [csv_text, markdown_text, tex_text, xml_text])
def test_no_format_shows_credentials(write: Callable[[str], str]) -> None:
    assert "SECRET" not in write("at https://me:SECRET@h/x?token=SECRET")
