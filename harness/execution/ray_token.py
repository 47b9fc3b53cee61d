"""Ray's token: whoever reaches a cluster's ports and has it can run code there. It is demanded unless the user says otherwise.

Ray listens on all interfaces, also where it serves one machine only, and without a token obeys whoever connects.
"""

from __future__ import annotations

import os
import secrets
from pathlib import Path
from typing import Any

import ray._raylet

from harness.errors import UsageError

MODE, TOKEN, TOKEN_PATH = "RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"


def demand_token(address: str | None) -> None:
    """Switch Ray to its token mode, before it is started or joined; ``RAY_AUTH_MODE=disabled`` switches that off.

    A cluster that is started here (``address`` None) gets a new token that is nowhere on disk, unless the user has set one. The
    file with the token of a running cluster is made private to its owner. Raises :class:`UsageError` where Ray does not follow.
    """
    if os.environ.setdefault(MODE, "token").lower() != "token":
        return
    file = Path(os.environ.get(TOKEN_PATH) or Path.home() / ".ray" / "auth_token")
    if address is None and TOKEN_PATH not in os.environ:
        os.environ.setdefault(TOKEN, secrets.token_hex(32))
    elif TOKEN not in os.environ and file.is_file():
        file.chmod(0o600)
    raylet: Any = ray._raylet  # no public name of Ray's says or sets the mode in a process that has imported it
    raylet.Config.initialize("")
    if raylet.get_authentication_mode() != raylet.AuthenticationMode.TOKEN:
        raise UsageError(
            expected="a Ray that asks for a token", got="one that does not", remedy=f"pip install 'ray>=2.52', or {MODE}=disabled"
        )
