"""The promises of docs/security.md that can be checked by reading the source."""

from __future__ import annotations

import ast
import html
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from reports.render.build import build_report
from tests.reports.conftest import Fake, write_fake

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("ilf_bench", "harness", "ilf", "baselines", "metrics", "reports", "zoo", "studies", "benchmarks")
SAFE = {"torch.load": ("weights_only", True), "np.load": ("allow_pickle", False), "numpy.load": ("allow_pickle", False)}
FORBIDDEN = {
    "pickle.load",
    "pickle.loads",
    "yaml.load",
    "yaml.unsafe_load",
    "yaml.full_load",
    "joblib.load",
    "marshal.loads",
    "shelve.open",
    "pd.read_pickle",
    "pandas.read_pickle",
    "eval",
    "exec",
    "os.popen",
}


def calls() -> Iterator[tuple[Path, ast.Call, str]]:
    """Every call in the product, with the name that is called."""
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Call):
                    yield path, node, ast.unparse(node.func)


DOORS = {  # who may open what: each of these looks at a file before a library does
    "torch.load": {"harness/models/reading.py"},
    "np.load": {"ilf_bench/doctor.py"},
    "Image.open": {"harness/storage/decoding.py", "harness/execution/controls.py"},
    "parquet.ParquetFile": {"harness/storage/tables.py"},
    "pandas.read_parquet": set(),
    "yaml.SafeLoader": set(),
    "yaml.safe_load": set(),
}


ENVIRONMENTS = ROOT / "metrics" / "command" / "environments"


def test_each_kind_of_file_has_one_door() -> None:
    found: dict[str, set[str]] = {name: set() for name in DOORS}
    for path, _, name in calls():
        if name in DOORS and not path.is_relative_to(ROOT / "benchmarks") and not path.is_relative_to(ROOT / "zoo"):
            if path.is_relative_to(ENVIRONMENTS):
                continue  # programs of other environments, which open only what the harness has written for them
            found[name].add(path.relative_to(ROOT).as_posix())
    assert found == DOORS


def test_nothing_is_unpickled() -> None:
    seen = 0
    for path, call, name in calls():
        assert name not in FORBIDDEN, f"{path}:{call.lineno} calls {name}"
        if name in SAFE:
            keyword, value = SAFE[name]
            given = [k.value for k in call.keywords if k.arg == keyword]
            assert given and isinstance(given[0], ast.Constant) and given[0].value is value, f"{path}:{call.lineno}"
            seen += 1
    assert seen >= 2


def test_no_code_from_a_hub_is_trusted() -> None:
    for path, call, _ in calls():
        for keyword in call.keywords:
            assert keyword.arg != "trust_remote_code", f"{path}:{call.lineno}"


def test_report_pages_carry_a_content_security_policy(tmp_path: Path) -> None:
    write_fake(tmp_path / "run", Fake(n=8, rounds=2))
    page = build_report(tmp_path / "run").read_text()
    policy = page.partition('http-equiv="Content-Security-Policy"')[2].partition(">")[0]
    assert "default-src 'none'" in html.unescape(policy) and "<b>x</b>" not in page


LOCKS = [("light-cpu.txt", "ci.lock"), ("full-metrics.txt", "full-metrics.lock"), ("site.txt", "site.lock")]


@pytest.mark.parametrize(("pinned", "locked"), LOCKS)
def test_a_lock_holds_every_pin_and_hashes_alone(pinned: str, locked: str) -> None:
    """After a change of the pins: python constraints/lock.py light > constraints/ci.lock."""
    pins, lock = (
        [line for line in (ROOT / "constraints" / name).read_text().splitlines() if line and not line.startswith("#")]
        for name in (pinned, locked)
    )
    lines = [re.fullmatch(r"([\w.-]+==\S+) --hash=sha256:[0-9a-f]{64}", line) for line in lock]
    assert all(lines), "a line that is no version with its hash"
    missing = {canonical(pin) for pin in pins} - {canonical(found.group(1)) for found in lines if found}
    assert not missing, "pins without a hash"
    assert any(line.startswith("pip==") for line in lock), "the installer itself is not locked"


def canonical(pin: str) -> str:
    """A name and its version as PEP 503 compares them."""
    name, _, version = pin.partition("==")
    return f"{re.sub(r'[-_.]+', '-', name).lower()}=={version}"


def test_every_action_is_pinned_by_commit() -> None:
    lines = [line for path in [*(ROOT / ".github").rglob("*.yml"), ROOT / "action.yml"] for line in path.read_text().splitlines()]
    used = [line.split("uses:")[1] for line in lines if "uses:" in line and "uses: ./" not in line]  # another's
    assert len(used) > 4
    assert all(re.fullmatch(r"\s*[\w-]+/[\w-]+@[0-9a-f]{40} # v[\d.]+", line) for line in used), used


def test_what_decodes_is_above_its_known_faults() -> None:
    """Pillow 12.2 and sentencepiece 0.2.1 have faults in what they decode, torch 2.9 in its weights_only reader (CVE-2026-24747),
    Jinja 3.1.5 in its sandbox; Ray 2.51 has no token.
    """
    least = {"pillow": (12, 3), "sentencepiece": (0, 2, 2), "torch": (2, 10), "jinja2": (3, 1, 6), "ray": (2, 52)}
    text = (ROOT / "pyproject.toml").read_text()
    for name, version in least.items():
        bounds = re.findall(rf'"{name}>=([\d.]+)', text)
        assert bounds and all(tuple(map(int, bound.split("."))) >= version for bound in bounds), name
