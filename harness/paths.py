"""Where the files that come with the installation lie: presets, bundled weights and references."""

from __future__ import annotations

from pathlib import Path

from harness.errors import UsageError

ROOT = Path(__file__).resolve().parents[1]  # the folder that holds harness/, presets/ and zoo/


def locate(name: str) -> Path:
    """A path as given where it exists, else relative to the installation."""
    path = Path(name)
    try:
        return path if path.exists() or path.is_absolute() else ROOT / path
    except OSError as error:  # a name that no file can have
        raise UsageError(expected="the name of a file or folder", got=repr(name[:80]), remedy="mend that path") from error
