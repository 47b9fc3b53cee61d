"""A user whom the system does not know, as in many containers: no home, no entry in the table of users."""

from __future__ import annotations

import os
import pwd
from pathlib import Path

from harness.paths import private_folder


def ensure_home() -> None:
    """Give such a user a name and a private folder as home: libraries keep caches there, and fail without."""
    try:
        pwd.getpwuid(os.getuid())
    except KeyError:
        os.environ.setdefault("USER", f"user-{os.getuid()}")
    try:
        known = Path.home().is_absolute()
    except RuntimeError:
        known = False
    if not known:
        os.environ["HOME"] = str(private_folder("home"))
