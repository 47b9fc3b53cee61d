"""``python -m ilf_bench``, and the console script."""

from __future__ import annotations

import sys

from ilf_bench.shadowing import complaint, shadowing_files
from ilf_bench.streams import steady_streams

EXIT_SHADOWED = 65


def entry() -> None:
    """Run the command line, once it is certain that what will be imported is ours."""
    steady_streams()
    for name, path in shadowing_files().items():
        sys.stderr.write(f"{complaint(name, path)}\n")
        sys.exit(EXIT_SHADOWED)
    from ilf_bench.cli import entry as run
    from ilf_bench.home import ensure_home

    ensure_home()
    run()


if __name__ == "__main__":
    entry()
