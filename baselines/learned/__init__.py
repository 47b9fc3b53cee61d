"""Rivals that are trained or searched."""
