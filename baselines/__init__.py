"""Accelerators that need no training: one file a method, one literal table."""
