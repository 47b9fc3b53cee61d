"""Adapters of published networks to the protocols of :mod:`metrics.base`. Packages are imported where they are used."""
