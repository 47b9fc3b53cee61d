"""Metrics served by programs in environments of their own, over JSON lines: docs/scorer-commands.md."""
