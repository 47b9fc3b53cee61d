"""Ray runs what whoever reaches it sends: it asks for a token, and nobody else can read that."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("ray")
from harness.execution.ray_token import MODE, TOKEN, TOKEN_PATH, demand_token

STARTED = """
import os, subprocess, sys
import ray
from harness.execution.ray import ClusterEngine, ClusterOptions

ClusterEngine(ClusterOptions(workers=1), None, None)._join()
address = ray.get_runtime_context().gcs_address
for changed in {}, {"RAY_AUTH_TOKEN": "0" * 64}, {"RAY_AUTH_MODE": "disabled"}:
    done = subprocess.run([sys.executable, "-c", sys.argv[1], address], env=os.environ | changed, capture_output=True, text=True)
    print(done.stdout.strip() or "REFUSED")
"""
STRANGER = "import ray, sys; ray.init(address=sys.argv[1], log_to_driver=False); print('JOINED')"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in (MODE, TOKEN, TOKEN_PATH):
        monkeypatch.setenv(name, "x")  # so that what is set below goes away with the test
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def test_a_cluster_of_our_own_has_a_new_token_that_is_nowhere_on_disk(home: Path) -> None:
    demand_token(None)
    assert os.environ[MODE] == "token" and len(os.environ[TOKEN]) == 64 and not list(home.iterdir())


def test_the_token_of_a_running_cluster_becomes_private(home: Path) -> None:
    file = home / ".ray" / "auth_token"
    file.parent.mkdir()
    file.write_text("0" * 64)
    file.chmod(0o644)
    demand_token("auto")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600 and TOKEN not in os.environ


def test_who_switches_it_off_is_obeyed(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(MODE, "disabled")
    demand_token(None)
    assert TOKEN not in os.environ


@pytest.mark.slow
def test_nobody_joins_without_the_token(home: Path) -> None:
    """A child process has it, one with another token and one without are refused."""
    done = subprocess.run([sys.executable, "-c", STARTED, STRANGER], capture_output=True, text=True, timeout=300)
    assert done.stdout.split() == ["JOINED", "REFUSED", "REFUSED"], done.stdout + done.stderr[-500:]
    assert not list(home.rglob("auth_token"))
