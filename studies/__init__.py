"""Studies that write docs/."""
