"""Labels of a plot: which lines a box touches, and that labels keep clear of markers, of each other and of leader lines."""

from __future__ import annotations

import numpy as np

from reports.render.label_places import PITCH, Labels, as_boxes, crossed

BOX = as_boxes([(0, 0, 10, 4)])


def test_lines_that_touch_a_box() -> None:
    lines = as_boxes(
        [(-5, 2, 15, 2), (5, -9, 5, 9), (-5, -5, 15, 9), (2, 1, 3, 2), (-5, 5, 15, 5), (11, -9, 11, 9), (8, 9, 18, -1)]
    )
    assert crossed(BOX, lines)[0].tolist() == [True, True, True, True, False, False, False]
    assert crossed(BOX, lines[:0]).shape == (1, 0)


def test_labels_keep_clear_of_everything_that_they_must() -> None:
    """Twelve markers in a small area: every label that has a place touches no marker, no other label and no leader line."""
    spots = np.random.default_rng(5).uniform((120, 80), (420, 240), (12, 2))
    curve = np.hstack([spots[:-1], spots[1:]])[:4]
    labels = Labels(spots, as_boxes([]), curve, (50, 20, 600, 300))
    found = {index: labels.place(index, f"method {index}") for index in range(12)}
    placed = {index: place for index, place in found.items() if place is not None}
    assert len(placed) >= 10
    dots = as_boxes([(x, y, x, y) for x, y in spots])
    for index, place in placed.items():
        box = as_boxes([place.box])
        assert not crossed(box, np.delete(dots, index, axis=0)).any()
        others = [other for number, other in placed.items() if number != index]
        assert not crossed(box, as_boxes([other.leader for other in others if other.leader])).any()
        assert not crossed(box, as_boxes([(o.box[0], o.box[1], o.box[2], o.box[3]) for o in others])).any()


def test_a_tidy_label_has_no_leader_line_and_lies_on_no_curve() -> None:
    """In a crowd some are left out, and alone each has a place."""
    spots = np.random.default_rng(5).uniform((120, 80), (220, 140), (12, 2))
    curve = np.hstack([spots[:-1], spots[1:]])
    labels = Labels(spots, as_boxes([]), curve, (50, 20, 600, 300))
    found = [place for index in range(12) if (place := labels.place(index, str(index), tidy=True)) is not None]
    assert 0 < len(found) < 12 and all(place.leader is None for place in found)
    assert not crossed(as_boxes([place.box for place in found]), curve).any()
    assert Labels(spots[:1], as_boxes([]), curve[:0], (50, 20, 600, 300)).place(0, "0", tidy=True) is not None


def test_a_label_of_two_lines_is_as_wide_as_the_longer_one_and_two_lines_high() -> None:
    spots = np.array([(300.0, 100.0)])
    one, two = (
        Labels(spots, as_boxes([]), as_boxes([]), (0, 0, 600, 200)).place(0, t) for t in ("spacing(1.5)", "6 +\nspacing(1.5)")
    )
    assert one is not None and two is not None
    assert two.box[2] - two.box[0] == one.box[2] - one.box[0]
    assert (two.box[3] - two.box[1]) - (one.box[3] - one.box[1]) == PITCH


def test_a_label_leaves_the_line_that_runs_beside_its_marker() -> None:
    spots = np.array([(100.0, 100.0), (300.0, 100.0)])
    level = as_boxes([(100, 100, 300, 100)])
    place = Labels(spots, as_boxes([]), level, (0, 0, 400, 200)).place(0, "full")
    assert place is not None and not crossed(as_boxes([place.box]), level).any()
    assert Labels(spots, as_boxes([]), level, (90, 90, 110, 110)).place(0, "full") is None
