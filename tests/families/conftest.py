"""Every family at tiny size, opened once for all tests."""

from __future__ import annotations

import pytest

from studies.families import Opened, opened


@pytest.fixture(scope="session")
def families(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Opened]:
    """Every case that was asked for, opened once."""
    root = tmp_path_factory.mktemp("families")

    class Lazily(dict[str, Opened]):
        def __missing__(self, name: str) -> Opened:
            self[name] = opened(name, root)
            return self[name]

    return Lazily()
