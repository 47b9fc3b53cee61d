"""The tutorial as a reader follows it: every command in order, for real, at toy size, and what each one leaves behind."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.paths import ROOT
from harness.storage.records import read_run
from ilf_bench.cli import main
from tests.docs.snippets import commands, fences

PAGE = ROOT / "docs" / "tutorial.md"
SMALL = ["--samples", "6", "--rounds", "2", "--warmup", "0", "--batches", "2", "--metrics", "psnr,ssim"]
CODES = {"doctor": {0, 1}}  # 1: something of the light core is missing or of another version here


@pytest.mark.documents
def test_every_command_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("zoo", "presets"):
        (tmp_path / name).symlink_to(ROOT / name)
    done = []
    for program, *arguments in commands(PAGE):
        if not program.endswith("ilf-bench"):
            assert program in ("python", ".venv/bin/pip")
            continue
        runs = sorted(tmp_path.glob("runs/tiny-text-*"), key=lambda path: path.stat().st_mtime)
        words = [str(runs[-1]) if word == "runs/RUN" else word for word in arguments]
        words += SMALL if words[0] == "run" else []
        assert main(words) in CODES.get(words[0], {0}), words
        done.append(words[0])
    assert done == ["doctor", "run", "report", "list", "run", "run", "power", "history", "bundle", "verify"]
    runs = sorted(tmp_path.glob("runs/tiny-text-*"), key=lambda path: path.stat().st_mtime)
    assert len(runs) == 2 and all(read_run(run).complete and (run / "report" / "index.html").exists() for run in runs)
    assert "Better than fewer steps at equal cost?" in capsys.readouterr().out
    for fence in fences(PAGE):
        exec(compile(fence.text.replace("runs/RUN", str(runs[0])), PAGE.name, "exec"), {})
