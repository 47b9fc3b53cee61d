"""What all pages share: one style sheet, a strict Content-Security-Policy, and templates in which everything is escaped."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from harness.text import blanked, without_credentials
from reports.render.style import palette_css

TEMPLATES = Path(__file__).resolve().parent / "templates"


class Own(Markup):
    """Markup of our own files, or made of texts that have been blanked: it goes into a page as it stands."""


def render_page(template: str, script: str, images: str, context: Mapping[str, Any]) -> str:
    """A whole page as text: ``template`` with the shared style sheet and one of our own scripts.

    Nothing is loaded from elsewhere: style and script are named by their digests, and ``images`` are the sources that pictures
    may come from. Everything in ``context`` is escaped and has its credentials blanked; a missing value
    raises instead of vanishing.
    """
    style, code = _text("page.css") + palette_css(), _text(script)
    policy = (
        f"default-src 'none'; img-src {images}; style-src '{_digest(style)}'; script-src '{_digest(code)}'; base-uri 'none'; "
        "form-action 'none'"
    )
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_blank,
    )
    environment.filters["data_uri"] = data_uri
    environment.filters["urlencode"] = lambda text: quote(without_credentials(text))  # as a page's own script finds it
    ours = {"csp": policy, "style": Own(style), "script": Own(code)}  # from our own files, not from the run
    return environment.get_template(template).render(**context, **ours)


def _blank(value: Any) -> Any:
    """A value of a template as the page may show it."""
    if isinstance(value, Own) or not isinstance(value, str):
        return value
    return type(value)(without_credentials(value))


def data_uri(content: bytes, kind: str) -> str:
    """``content`` as a data URI of MIME type ``kind``."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def embedded_json(content: Any) -> Own:
    """JSON without credentials, safe inside a script element: no ``<`` can end it, and no sign can end a JavaScript line."""
    text = json.dumps(blanked(content), separators=(",", ":"), allow_nan=False)  # ASCII only
    return Own(text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))


def _text(name: str) -> str:
    return (TEMPLATES / name).read_text(encoding="utf-8")


def _digest(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def breakable(label: str, after: str = ",") -> Markup:
    """A label that a narrow column breaks before its options and after the letters of ``after``, and nowhere in a word."""
    text = str(escape(without_credentials(label))).replace("(", "<wbr>(")
    for letter in after:
        text = text.replace(letter, f"{letter}<wbr>")
    return Markup(text)


def dated(text: str) -> Markup:
    """A text whose last word is a date, which no narrow line breaks at its hyphens."""
    return Markup(re.sub(r"(\d{4}-\d\d-\d\d)$", r'<span class="nowrap">\1</span>', str(escape(text))))
