"""Print a lock file with hashes: ``python constraints/lock.py > constraints/ci.lock``, in an environment of its own.

It asks pip what it would install for the light core and the developer's tools under constraints/light-cpu.txt, and writes down
each file's version and SHA-256. The hashes are of the files that this Python, this platform and this index get.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
HEADER = """# Written by constraints/lock.py for Python {python} on Linux x86-64 with the CPU build of torch; do not edit.
# pip install --require-hashes -r constraints/ci.lock
"""


def main() -> None:
    """Resolve, and print the lock."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        command = [
            sys.executable,
            "-m",
            "pip",
            "install",
            "--dry-run",
            "--ignore-installed",
            "--quiet",
            "--report",
            str(report),
            "--constraint",
            str(ROOT / "constraints" / "light-cpu.txt"),
            f"{ROOT}[dev]",
        ]
        subprocess.run(command, check=True, stdout=sys.stderr)
        installed = json.loads(report.read_text())["install"]
    lines = []
    for item in installed:
        name, version = item["metadata"]["name"], item["metadata"]["version"].partition("+")[0]
        if name != "ilf-bench":
            lines.append(f"{name.lower()}=={version} --hash=sha256:{item['download_info']['archive_info']['hashes']['sha256']}")
    print(HEADER.format(python=".".join(map(str, sys.version_info[:2]))) + "\n".join(sorted(lines)))


if __name__ == "__main__":
    main()
