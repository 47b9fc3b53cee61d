"""For mkdocstrings: the docstrings of this project as Markdown."""

from __future__ import annotations

from typing import Any

import griffe

from website.text import plain


class PlainDocstrings(griffe.Extension):  # type: ignore[misc]  # unknown where mkdocs is not installed
    """For mkdocstrings: every docstring of an object as Markdown."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Replace the text of one object."""
        if obj.docstring is not None:
            obj.docstring.value = plain(obj.docstring.value)
