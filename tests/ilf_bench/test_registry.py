"""What installed packages add by entry points: listed, usable, and harmless where they are broken."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.errors import UsageError
from ilf_bench.cli import main
from ilf_bench.doctor import check_packages
from ilf_bench.registry import BUILT_IN, Registry, added_by_packages
from metrics.table import METRICS
from tests.ilf_bench.test_plugins import HALF, METRIC

Install = Callable[..., None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """A package in site-packages, as pip would leave it: a module and the entry points of its metadata."""

    def put(package: str, code: str, entries: str) -> None:
        (tmp_path / f"{package}.py").write_text(code)
        info = tmp_path / f"{package}-1.2.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.2\n")
        (info / "entry_points.txt").write_text(entries)
        monkeypatch.delitem(sys.modules, package, raising=False)
        importlib.invalidate_caches()

    monkeypatch.syspath_prepend(str(tmp_path))
    return put


def test_without_packages_there_is_what_is_built_in() -> None:
    registry = Registry.of()
    assert dict(registry.methods) == dict(BUILT_IN) and dict(registry.metrics) == dict(METRICS)
    assert not registry.plugins and not registry.missing


def test_a_package_adds_a_method_and_a_metric(install: Install, capsys: pytest.CaptureFixture[str]) -> None:
    entries = "[ilf_bench.methods]\nhalf = pkg_good:Half\n[ilf_bench.metrics]\nbrightness = pkg_good:Brightness\n"
    install("pkg_good", HALF.replace("NAME", "half") + METRIC, entries)
    registry = Registry.of()
    assert registry.method("half:0.25").label == "half(0.25)"
    assert registry.plugins["half"].name == "pkg_good 1.2"
    registry.check_metrics(["brightness", "psnr"])
    assert main(["list", "methods"]) == 0 and "part=0.5" in capsys.readouterr().out
    assert main(["list", "metrics"]) == 0 and "brightness" in capsys.readouterr().out
    (finding,) = check_packages()
    assert (finding.check, finding.state) == ("pkg_good 1.2", "ok")
    assert finding.found == "adds half (methods), brightness (metrics)"


@pytest.mark.parametrize(
    ("code", "target", "word"),
    [
        ("raise ValueError('package speaking')", "pkg_bad:Half", "package speaking"),
        ("", "pkg_bad:Half", "AttributeError"),
        ("", "pkg_nowhere:Half", "pkg_nowhere"),
        ("Half = 3", "pkg_bad:Half", "dataclass"),
    ],
)
def test_a_broken_entry_point_is_named_and_stops_no_other(install: Install, code: str, target: str, word: str) -> None:
    install("pkg_bad", code, f"[ilf_bench.methods]\nbroken = {target}\n")
    install("pkg_good", HALF.replace("NAME", "half"), "[ilf_bench.methods]\nhalf = pkg_good:Half\n")
    registry = Registry.of()
    assert registry.method("half").label == "half(0.5)" and registry.method("steps:3").label == "3 steps"
    with pytest.raises(UsageError, match=f"pkg_bad 1.2: .*{word}"):
        registry.method("broken")
    with pytest.raises(UsageError, match="a method out of"):
        registry.method("never-heard-of")
    good, bad = check_packages()
    assert good.check == "pkg_good 1.2" and bad.check == "pkg_bad 1.2" and word in bad.found and bad.state == "missing"


def test_doctor_lists_families_and_names_those_that_fail(install: Install) -> None:
    install("pkg_family", "FAMILY = object()", "[ilf_bench.families]\nmine = pkg_family:FAMILY\nlost = pkg_family:NOTHING\n")
    good, bad = check_packages()
    assert (good.state, good.found) == ("ok", "adds mine (families)")
    assert (bad.state, bad.check) == ("missing", "pkg_family 1.2") and "families lost" in bad.found


def test_no_package_takes_a_name_that_is_taken(install: Install) -> None:
    install("pkg_a", HALF.replace("NAME", "a"), "[ilf_bench.methods]\nhalf = pkg_a:Half\nfora = pkg_a:Half\n")
    install("pkg_b", HALF.replace("NAME", "b"), "[ilf_bench.methods]\nhalf = pkg_b:Half\n")
    registry = Registry.of()
    assert registry.method("half").label == "a(0.5)" and registry.method("fora").label.startswith("fora")
    faults = {(one.package, one.name): one.fault for one in added_by_packages("methods")}
    assert "ilf-bench" in faults["pkg_a 1.2", "fora"] and "pkg_a 1.2" in faults["pkg_b 1.2", "half"]
