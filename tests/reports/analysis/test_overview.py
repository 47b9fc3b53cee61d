"""What the first screen says: the fastest method without a measurable loss, and on how many metrics the rest is undecided."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from harness.storage.records import Run
from reports.analysis.overview import lossless, overview
from reports.render.overview import rows, sentence

Make = Callable[..., Run]
PLAIN = {"full": (20, 480, 1.0, 10.0), "5 steps": (5, 120, 0.25, 6.0)}


@pytest.mark.parametrize(
    ("quality", "fastest", "shown"),
    [
        ({"same": (0.5, 9.95), "worse": (0.3, 9.0)}, "cache(same)", True),
        ({"edge": (0.5, 9.97), "slow": (0.9, 9.95)}, "cache(edge)", True),
        ({"within": (0.5, 9.75), "beyond": (0.4, 9.2)}, "cache(within)", True),
        ({"slower": (1.5, 10.0)}, None, False),
    ],
)
def test_the_fastest_without_a_loss(
    make_run: Make, quality: dict[str, tuple[float, float]], fastest: str | None, shown: bool
) -> None:
    methods = PLAIN | {f"cache({name})": (20, 250, seconds, value) for name, (seconds, value) in quality.items()}
    run = make_run(methods=methods)
    found = overview(run)
    best = lossless(run, found)
    assert (best.line.label if best else None) == fastest and (best is not None and best.shown) == shown
    words = sentence(run, found)
    assert ("with at most 10% of 5 steps' loss" in words) == shown and ("Fastest" in words) == (fastest is not None)


def test_without_a_proof_the_sentence_says_that_none_is_shown(make_run: Make) -> None:
    """With five images the noise is larger than the margin, a tenth of what five steps lose."""
    run = make_run(methods=PLAIN | {"cache(open)": (20, 250, 0.5, 9.9)}, n=5)
    best = lossless(run, overview(run))
    assert best is not None and best.line.label == "cache(open)" and not best.shown
    assert "not proof of none" in sentence(run, overview(run))


def test_a_row_says_on_how_many_metrics_it_is_undecided(make_run: Make) -> None:
    run = make_run(methods=PLAIN | {"12 steps": (12, 288, 0.6, 9.5), "cache(x)": (20, 250, 0.5, 8.5)})
    tally = next(row.tally for row in rows(run, overview(run)) if row.label == "cache(x)")
    assert tally == "undecided on 2 of 2"
