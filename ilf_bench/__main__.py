"""``python -m ilf_bench``."""

from ilf_bench.cli import entry

entry()
