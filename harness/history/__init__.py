"""Every finished run in one file, and its exports."""
