"""Files of the user that Python would import in place of ours: ours are several top-level packages with plain names.

It imports nothing but the standard library, because it is asked before anything of ours is imported.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("harness", "ilf", "baselines", "metrics", "reports", "zoo")
REMEDY = "rename it, start ilf-bench from another folder, or take that folder off PYTHONPATH"


def shadowing_files() -> dict[str, Path]:
    """By the name of a package of ours: the file or folder that ``import`` finds before it."""
    found = {name: _origin(name) for name in PACKAGES}
    return {name: path for name, path in found.items() if path is not None and not path.is_relative_to(ROOT)}


def _origin(name: str) -> Path | None:
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError):
        return None
    if spec is None:
        return None
    where = spec.origin or next(iter(spec.submodule_search_locations or ()), None)
    return None if where is None else Path(where).resolve()


def complaint(name: str, path: Path) -> str:
    """One line about one file."""
    return f"error: expected {ROOT / name}, a part of ilf-bench; got {path}, which Python finds first; remedy: {REMEDY}"
