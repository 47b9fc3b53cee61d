"""Accelerators of other packages."""
