"""Scores of generated images: one file a metric, one literal table of them (:mod:`metrics.table`)."""
