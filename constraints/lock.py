"""Print a lock file with hashes, in an environment of its own: ``python constraints/lock.py light > constraints/ci.lock``.

It asks pip what it would install under a file of constraints, and writes down each file's version and SHA-256, pip's own among
them. ``light`` is the light core with the developer's tools, ``full`` the published metrics with them (full-metrics.lock),
``site`` the light core with what builds the documentation's site (site.lock), and another name the environment of a scorer
command (metrics/command/environments/NAME/requirements.txt, from its requirements.in; what stands in alone.in comes without the
packages that it asks for).
The hashes are of the files that this Python, this platform and this index get.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
HEADER = """# Written by constraints/lock.py for Python {python} on Linux x86-64; do not edit. {torch}
# pip install --require-hashes --no-deps -r constraints/{name}
"""
ENVIRONMENTS = ROOT / "metrics" / "command" / "environments"
LOCKS = {
    "light": ("ci.lock", "light-cpu.txt", "dev", (), "With the CPU build of torch."),
    "full": ("full-metrics.lock", "full-metrics.txt", "metrics,dev", ("image-reward==1.5", "fairscale==0.4.13"), ""),
    "site": ("site.lock", "site.txt", "site", (), "With the CPU build of torch."),
}


def resolved(*arguments: str) -> list[dict[str, Any]]:
    """What pip would install."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        command = [sys.executable, "-m", "pip", "install", "--dry-run", "--ignore-installed", "--quiet", "--report", str(report)]
        subprocess.run([*command, *arguments], check=True, stdout=sys.stderr)
        return list(json.loads(report.read_text())["install"])


def line(item: dict[str, Any]) -> str:
    """Of one package; ``+cpu`` and the like are no part of a version that is asked for."""
    name, version = item["metadata"]["name"], item["metadata"]["version"].partition("+")[0]
    return f"{name.lower()}=={version} --hash=sha256:{item['download_info']['archive_info']['hashes']['sha256']}"


def main(kind: str) -> None:
    """Resolve, and print the lock."""
    if kind not in LOCKS:
        found = resolved("--requirement", str(ENVIRONMENTS / kind / "requirements.in"))
        without_theirs = ENVIRONMENTS / kind / "alone.in"
        found += resolved("--no-deps", "--requirement", str(without_theirs)) if without_theirs.exists() else []
        print(HEADER.format(name="requirements.txt", python=".".join(map(str, sys.version_info[:2])), torch="").rstrip())
        print("\n".join(sorted(line(item) for item in found)))
        return
    name, constraints, extras, alone, torch = LOCKS[kind]
    found = resolved("--constraint", str(ROOT / "constraints" / constraints), f"{ROOT}[{extras}]", "pip")
    if alone:
        found += resolved("--no-deps", *alone)
    lines = sorted(line(item) for item in found if item["metadata"]["name"] != "ilf-bench")
    print(HEADER.format(name=name, python=".".join(map(str, sys.version_info[:2])), torch=torch).replace(" \n", "\n"), end="")
    print("\n".join(lines))


if __name__ == "__main__":
    main(sys.argv[1])
