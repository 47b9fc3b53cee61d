"""The doctor: what it says of a healthy machine, of damaged weights, and of packages that break each other."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from ilf_bench import doctor
from ilf_bench.cli import main
from ilf_bench.doctor import BUNDLED, Bundled, CheckResult
from ilf_bench.scorer_commands import STAMP, environments, user_file


def make_zoo(root: Path) -> Path:
    """A folder with every file that the doctor asks for, each of them readable."""
    for bundled in BUNDLED:
        for part in bundled.parts:
            folder = root / bundled.folder / part
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "config.json").write_text("{}")
            save_file({"weight": np.zeros(64, np.float32)}, folder / "model.safetensors")
        for name in bundled.files:
            file = root / bundled.folder / name
            file.parent.mkdir(parents=True, exist_ok=True)
            if file.suffix == ".npz":
                np.savez(file, features=np.zeros((4, 2)))
            elif file.suffix == ".safetensors":
                save_file({"weight": np.zeros(4, np.float32)}, file)
            else:
                file.write_text("{}" if file.suffix == ".json" else "a prompt\n")
    return root


def test_a_complete_zoo_is_ok(tmp_path: Path) -> None:
    findings = doctor.check_bundled(make_zoo(tmp_path))
    assert [f.state for f in findings] == ["ok"] * len(BUNDLED) and len({f.check for f in findings}) == len(BUNDLED)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-16])


@pytest.mark.parametrize("bundled", BUNDLED, ids=lambda b: f"{b.folder}-{b.recipe}")
def test_each_file_is_missed_and_each_cut_file_is_found(tmp_path: Path, bundled: Bundled) -> None:
    names = [name for part in bundled.parts for name in (f"{part}/config.json", f"{part}/model.safetensors")]
    for number, name in enumerate([*names, *bundled.files]):
        for damage in (Path.unlink, cut):
            zoo = make_zoo(tmp_path / f"{number}-{damage.__name__}")
            damage(zoo / bundled.folder / name)
            (broken,) = [f for f in doctor.check_bundled(zoo) if f.state == "broken"]
            assert bundled.recipe in broken.remedy and bundled.lost in broken.remedy
            part = str(Path(name).parent)
            assert str(Path(name)) in broken.found or broken.found == f"no weights in {part}"


def test_an_empty_zoo_names_a_recipe_for_each_folder(tmp_path: Path) -> None:
    findings = doctor.check_bundled(tmp_path)
    assert all(f.state == "broken" and "python -m zoo.recipes.build" in f.remedy for f in findings)
    recipes = {f.remedy.rpartition(" ")[2] for f in findings}
    assert recipes == {bundled.recipe for bundled in BUNDLED}


def test_recipes_are_those_of_the_zoo() -> None:
    from zoo.recipes.build import NAMES

    assert {bundled.recipe for bundled in BUNDLED} <= set(NAMES)


def test_light_core_is_ok_here() -> None:
    findings = {f.check: f for f in doctor.diagnose()}
    for check in ("python", "torch", "diffusers", "transformers", "torchmetrics", "cpu"):
        assert findings[check].state == "ok", findings[check]
    assert torch.__version__ in findings["torch"].found
    assert ("cuda" in findings) is (not torch.cuda.is_available())
    assert all(f.remedy for f in findings.values() if f.state != "ok")
    assert "/" in findings["disk"].found


TRAP = "raise RuntimeError('operator torchvision::nms does not exist')\n"


def install_fake(folder: Path, package: str, module: str, code: str) -> None:
    """A distribution with one module."""
    info = folder / f"{package.replace('-', '_')}-9.9.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 9.9\n")
    (folder / f"{module}.py").write_text(code)


def ask(check: str, path: Path) -> CheckResult:
    """One check in a fresh interpreter that sees the fake packages."""
    code = f"import dataclasses, json; from ilf_bench import doctor; print(json.dumps(dataclasses.asdict(doctor.{check}())))"
    environment = {"PYTHONPATH": f"{path}:{doctor.ROOT}", "PATH": "/usr/bin:/bin"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    return CheckResult(**json.loads(done.stdout))


@pytest.mark.parametrize(
    ("check", "package", "module"),
    [("check_torchvision", "torchvision", "torchvision"), ("check_torch_fidelity", "torch-fidelity", "torch_fidelity")],
)
def test_a_package_that_breaks_its_neighbours_is_broken(tmp_path: Path, check: str, package: str, module: str) -> None:
    install_fake(tmp_path, package, module, TRAP)
    finding = ask(check, tmp_path)
    assert finding.state == "broken" and "torchvision::nms" in finding.found and f"pip uninstall {package}" in finding.remedy


def test_it_speaks_where_torch_is_broken(tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text("raise ImportError('libtorch_cpu.so: cannot open shared object file')\n")
    finding = ask("check_torch", tmp_path)
    assert finding.state == "broken" and "libtorch_cpu.so" in finding.found and finding.remedy


def test_font_and_browser_are_optional(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert doctor.check_font(tmp_path / "none.ttf").state == "missing"
    browser = doctor.check_browser()
    assert browser.state == "missing" and "chromedriver" in browser.found
    git = doctor.check_git(tmp_path)
    assert git.state == "missing" and f"ilf-bench {version('ilf-bench')}" in git.found


def test_exit_code_follows_the_findings(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [CheckResult("one", "ok", "1.0"), CheckResult("two", "missing", "none", "get it")]
    monkeypatch.setattr(doctor, "diagnose", lambda: rows)
    assert main(["doctor"]) == 0
    rows.append(CheckResult("three", "broken", "damaged", "restore it"))
    assert main(["doctor"]) == 1
    said = capsys.readouterr().out
    assert "get it" in said and "restore it" in said


@pytest.fixture
def own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for variable in ("XDG_CACHE_HOME", "XDG_CONFIG_HOME"):
        monkeypatch.setenv(variable, str(tmp_path / variable))
    return tmp_path


def test_scorer_commands_are_listed_by_their_state(own_folders: Path) -> None:
    known = environments()
    findings = doctor.check_scorer_commands()
    assert [f.check for f in findings] == [f"scorer {name}" for name in known]
    for finding, (name, environment) in zip(findings, known.items(), strict=True):
        assert (finding.state, finding.found) == ("missing", "not installed")
        assert finding.remedy.endswith(f"ilf-bench scorers install {name}")
        assert all(metric in finding.remedy for metric in environment.about.metrics)
    for name, digest in (("brisque", known["brisque"].digest), ("imscore", "of other files")):
        known[name].python.parent.mkdir(parents=True)
        known[name].python.touch()
        (known[name].folder / STAMP).write_text(json.dumps({"digest": digest}))
    found = {f.check: (f.state, f.found, bool(f.remedy)) for f in doctor.check_scorer_commands()}
    assert found["scorer brisque"] == ("ok", "installed", False)
    assert found["scorer imscore"] == ("missing", "outdated", True)
    assert found["scorer hpsv3"] == ("missing", "not installed", True)


def test_the_users_own_commands_are_listed_and_not_started(own_folders: Path) -> None:
    user_file().parent.mkdir(parents=True)
    user_file().write_text(f"commands:\n  mine:\n    command: [touch, {own_folders}/started]\n")
    assert doctor.check_scorer_commands()[-1] == CheckResult("scorer mine", "ok", f"yours: touch {own_folders}/started")
    assert not (own_folders / "started").exists()
    user_file().write_text("commands: [mine]\n")
    *others, wrong = doctor.check_scorer_commands()
    assert len(others) == len(environments()), "the others are listed all the same"
    assert wrong.state == "missing" and "commands" in wrong.found and wrong.remedy == f"correct {user_file()}"
