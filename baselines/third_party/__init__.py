"""Accelerators of other packages as rows of the benchmark."""
