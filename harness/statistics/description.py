"""What the numbers in reports and docs are, in words: stated once, beside the code that computes them."""

from __future__ import annotations

from harness.statistics.intervals import CONFIDENCE
from harness.statistics.resampling import RESAMPLES
from harness.statistics.rounds import TRIMMED

FRACTION = {5: "fifth"}[TRIMMED]
STATISTICS = {
    "Scores": (
        f"Mean over images with Student's {CONFIDENCE:.0%} interval. A score that is no mean of per-image values, such as FID, "
        "has pseudo-values in their place: the score plus each image's influence on it."
    ),
    "Differences": (
        "Paired: image by image between methods that start from the same noise. Bias-corrected and accelerated (BCa) "
        f"bootstrap with {RESAMPLES:,} resamples of images, or of whole prompts where a prompt occurs more than once; with "
        "Hesterberg's expansion for few units, and never narrower than Student's interval on either side."
    ),
    "Speed-ups": (
        "Per interleaved round, the logarithm of the ratio of the two times, in which drift of the machine cancels; over "
        f"rounds, the mean without the lowest and the highest {FRACTION}, with the interval of Tukey and McLaughlin."
    ),
    "Times": (
        "Median over rounds; the range beside it is the middle half of the rounds and no confidence interval. A 95th "
        "percentile over few rounds is close to the slowest round."
    ),
}
