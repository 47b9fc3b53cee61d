"""Docstrings of this project as Markdown: roles become code, examples become fences."""

from __future__ import annotations

import re

ROLE = re.compile(r":(?:class|func|meth|mod|attr|data|exc):`~?([^`]+)`")
EXAMPLE = re.compile(r"(?:^[ ]*>>> .*\n(?:^[ ]*(?!>>> )\S.*\n?)*)+", re.MULTILINE)
CODE = re.compile(r"``([^`]+)``")


def plain(text: str) -> str:
    """The Markdown of a docstring."""
    text = CODE.sub(r"`\1`", ROLE.sub(r"`\1`", text))
    return EXAMPLE.sub(lambda found: f"```pycon\n{found[0].rstrip()}\n```\n", text)
