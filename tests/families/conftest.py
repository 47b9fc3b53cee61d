"""Every family at tiny size, opened once for all tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from studies.families import Opened, opened

QUICK = ("SD3", "FLUX.1-dev")  # two streams and guidance of both kinds: the cases of `make test`; `make test-families` has all


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What is tried on each case belongs to the long suite, but for two cases."""
    for item in items:
        told = getattr(item, "callspec", None)
        if Path(__file__).parent in item.path.parents and told is not None:
            name = told.params.get("name", told.params.get("pipeline"))
            if name is not None and name not in QUICK:
                item.add_marker(pytest.mark.families)


@pytest.fixture(scope="session")
def families(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Opened]:
    """Every case that was asked for, opened once."""
    root = tmp_path_factory.mktemp("families")

    class Lazily(dict[str, Opened]):
        def __missing__(self, name: str) -> Opened:
            self[name] = opened(name, root)
            return self[name]

    return Lazily()
