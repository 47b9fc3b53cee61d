"""Where the labels of a plot go: near their markers, over no marker, no label and no leader line, and over few other lines.

Boxes are (left, top, right, bottom) and lines (x, y, x, y) in pixels, each an array of shape [N, 4].
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from reports.render.svg import LINE, RADIUS, Box

Boxes = NDArray[np.float64]
Flags = NDArray[np.bool_]
TURNS = 16  # directions in which a label is tried
REACHES = (11, 18, 28, 42, 60, 84, 112, 150)  # distances in pixels from the marker
LEADER = 17  # a label farther away than this has a line to its marker
WIDE, PITCH = 7.4, 13  # width of an average bold letter; from one line of a label to the next
CURVE, BAR, MARKER, LED = 30, 9, 40, 8  # what a crossed curve, interval or marker, or a leader line, costs in pixels of distance
STOLEN = 40  # and a label that is nearer to another marker than to its own


@dataclass(frozen=True)
class Place:
    """A label's box, and the line that leads to it from its marker's edge, or None where the marker is plainly its own."""

    box: Box
    leader: Box | None


@dataclass
class Labels:
    """Labels of one plot, placed one after the other.

    ``spots`` are the middles of all markers, [P, 2]; ``bars`` their intervals and ``curves`` what is drawn between them;
    ``area`` is the box that labels stay in.
    """

    spots: Boxes
    bars: Boxes
    curves: Boxes
    area: Box
    _boxes: list[Box] = field(default_factory=list)
    _leaders: list[Box] = field(default_factory=list)

    def place(self, index: int, text: str, farthest: float = REACHES[-1], *, tidy: bool = False) -> Place | None:
        """The best place for the label of marker ``index``; None where there is no room for its lines within ``farthest`` pixels.

        ``tidy``: only where it needs no leader line and lies on no curve, for labels that a crowded plot can do without.
        """
        boxes, reaches = _around(self.spots[index], text)
        leads = _leads(self.spots[index], boxes)
        own, other = self._gaps(index, boxes)
        led = (reaches > LEADER) | (other < 1.6 * own + 5)
        markers, others = self._markers(), np.delete(self._markers(), index, axis=0)
        free = (reaches <= farthest) & self._inside(boxes)
        free &= ~_meet(boxes, markers).any(1) & ~_meet(boxes, as_boxes(self._boxes)).any(1)
        if tidy:
            free &= ~led & ~crossed(boxes, self.curves).any(1) & ~crossed(boxes, as_boxes(self._leaders)).any(1)
        clear = free & ~crossed(boxes, as_boxes(self._leaders)).any(1)
        clear &= ~(led & crossed(as_boxes(self._boxes), leads).any(0))
        if not free.any():
            return None
        cost = reaches + LED * led + STOLEN * (other < own) + MARKER * led * crossed(others, leads).sum(0)
        cost = cost + CURVE * crossed(boxes, self.curves).sum(1) + BAR * crossed(boxes, self.bars).sum(1)
        best = int(np.argmin(np.where(clear if clear.any() else free, cost, np.inf)))
        found = Place(_box(boxes[best]), _box(leads[best]) if led[best] else None)
        self._boxes.append(found.box)
        self._leaders += [found.leader] if found.leader else []
        return found

    def _markers(self) -> Boxes:
        half = RADIUS + 1
        return np.hstack([self.spots - half, self.spots + half])

    def _inside(self, boxes: Boxes) -> Flags:
        left, top, right, bottom = self.area
        found: Flags = (boxes[:, 0] >= left) & (boxes[:, 1] >= top) & (boxes[:, 2] <= right) & (boxes[:, 3] <= bottom)
        return found

    def _gaps(self, index: int, boxes: Boxes) -> tuple[Boxes, Boxes]:
        """Pixels from each box to its own marker's middle, and to that of the nearest other one."""
        gaps = np.linalg.norm(_nearest(self.spots, boxes) - self.spots[None], axis=2)  # [boxes, markers]
        return gaps[:, index], np.delete(gaps, index, axis=1).min(1, initial=np.inf)


def as_boxes(found: Sequence[Box]) -> Boxes:
    """Boxes or lines as an array [N, 4], for N = 0, too."""
    return np.array(found, np.float64).reshape(-1, 4)


def crossed(boxes: Boxes, lines: Boxes) -> Flags:
    """Which lines touch which boxes, [boxes, lines], by the part of each line that lies within a box (Liang and Barsky)."""
    enter, leave = np.zeros((len(boxes), len(lines))), np.ones((len(boxes), len(lines)))
    for axis in (0, 1):
        start, run = lines[None, :, axis], lines[None, :, axis + 2] - lines[None, :, axis]
        low, high = boxes[:, None, axis] - start, boxes[:, None, axis + 2] - start
        flat, inside = run == 0, (low <= 0) & (high >= 0)
        slope = np.where(flat, 1.0, run)
        first, last = np.minimum(low / slope, high / slope), np.maximum(low / slope, high / slope)
        enter = np.maximum(enter, np.where(flat, np.where(inside, 0.0, 2.0), first))
        leave = np.minimum(leave, np.where(flat, 1.0, last))
    return np.asarray(enter <= leave)


def _meet(a: Boxes, b: Boxes) -> Flags:
    """Which boxes overlap, [a, b]."""
    within = (a[:, None, :2] <= b[None, :, 2:]) & (b[None, :, :2] <= a[:, None, 2:])
    return np.asarray(within.all(2))


def _around(spot: Boxes, text: str) -> tuple[Boxes, Boxes]:
    """The boxes that a label may take around a marker, and the distance of each one's side that faces it."""
    angles, reaches = np.meshgrid(2 * np.pi * np.arange(TURNS) / TURNS, np.array(REACHES, np.float64))
    angle, reach = angles.ravel(), reaches.ravel()
    lines = text.split("\n")
    width, height = WIDE * max(map(len, lines)) + 2, LINE + PITCH * (len(lines) - 1)
    x, y = spot[0] + reach * np.cos(angle), spot[1] + reach * np.sin(angle)
    left = np.where(np.cos(angle) > 0.3, x, np.where(np.cos(angle) < -0.3, x - width, x - width / 2))
    return np.stack([left, y - height / 2 - 1, left + width, y + height / 2 + 2], axis=1), reach


def _nearest(spots: Boxes, boxes: Boxes) -> Boxes:
    """The point of each box that is nearest to each spot, [boxes, spots, 2]."""
    return np.clip(spots[None], boxes[:, None, :2], boxes[:, None, 2:])


def _leads(spot: Boxes, boxes: Boxes) -> Boxes:
    """A line from the marker's edge to the nearest side of each box."""
    end = _nearest(spot[None], boxes)[:, 0]
    length = np.maximum(np.linalg.norm(end - spot, axis=1, keepdims=True), 1e-9)
    return np.hstack([spot + (end - spot) * np.minimum(RADIUS / length, 1.0), end])


def _box(found: Boxes) -> Box:
    left, top, right, bottom = (float(value) for value in found)
    return left, top, right, bottom
