"""Intervals, tests and comparisons over stored measurements. numpy and scipy only, so that a report needs no torch."""

from harness.statistics.intervals import Estimate, Interval, mean_interval
from harness.statistics.means import estimate_mean, estimate_means, paired_difference, score_difference
from harness.statistics.multiple import holm
from harness.statistics.resampling import RESAMPLES, group_by
from harness.statistics.rounds import time_ratio

__all__ = [
    "RESAMPLES",
    "Estimate",
    "Interval",
    "estimate_mean",
    "estimate_means",
    "group_by",
    "holm",
    "mean_interval",
    "paired_difference",
    "score_difference",
    "time_ratio",
]
