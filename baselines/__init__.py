"""Accelerators that need no training: one file per method, one literal table."""
