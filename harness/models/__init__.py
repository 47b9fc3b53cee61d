"""Checkpoints: found, checked, loaded, or built at random."""
