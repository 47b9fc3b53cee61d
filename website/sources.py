"""Pages for files of the repository that the documentation links to: source files, folders and notebooks."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

LANGUAGES = {".py": "python", ".yaml": "yaml", ".yml": "yaml", ".sh": "bash", ".json": "json", ".toml": "toml", ".cff": "yaml"}


def source_page(path: Path, name: str) -> str:
    """One file as a page: a notebook with its cells, a folder with its files, anything else as it is."""
    if path.is_dir():
        files = sorted(one for one in path.iterdir() if one.is_file() and not one.name.startswith((".", "__")))
        return f"# {name}/\n\n" + "\n".join(f"- [{one.name}]({one.name})" for one in files) + "\n"
    if path.suffix == ".ipynb":
        return notebook_page(json.loads(path.read_text()), name)
    return f"# {name}\n\n{fence(path.read_text(), LANGUAGES.get(path.suffix, 'text'))}"


def fence(text: str, language: str) -> str:
    """A block of code, whatever it contains."""
    return f"~~~~~~{language}\n{text.rstrip()}\n~~~~~~\n"


def notebook_page(notebook: dict[str, Any], name: str) -> str:
    """The cells of a notebook, with what they printed and drew; pages of HTML are left to the notebook itself."""
    parts = [f"`{name}`, as it was executed.\n"]
    for cell in notebook["cells"]:
        text = "".join(cell["source"])
        parts.append(text if cell["cell_type"] == "markdown" else fence(text, "python"))
        parts.extend(shown for output in cell.get("outputs", []) if (shown := _output(output)))
    return "\n\n".join(parts) + "\n"


def _output(output: dict[str, Any]) -> str:
    data = output.get("data", {})
    if "image/png" in data:
        return _picture("image/png", "".join(data["image/png"]).replace("\n", ""))
    if "image/svg+xml" in data:
        return _picture("image/svg+xml", base64.b64encode("".join(data["image/svg+xml"]).encode()).decode())
    text = "".join(output.get("text", data.get("text/plain", "")))
    return fence(text, "text") if text.strip() else ""


def _picture(kind: str, encoded: str) -> str:
    return f"![Output of the cell above](data:{kind};base64,{encoded})"
