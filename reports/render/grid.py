"""Samples side by side: one row per method, one column per prompt, every image of a column from the same noise."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib
from PIL import Image, ImageDraw, ImageFont

from harness.results import A_A
from harness.storage.decoding import open_image
from harness.storage.layout import slug
from harness.storage.records import Run
from reports.analysis.select import Sample, method_order, samples_of
from reports.render.plots import DRAWN

COLUMNS, CELL, GAP, LABEL_WIDTH, TEXT = 8, 128, 6, 210, 14
PAPER_ROWS = 12
INK, PAPER = "#1b1f24", "#ffffff"


@dataclass(frozen=True)
class Thumbnail:
    """A small picture, and the name of its file where the page does not contain it."""

    name: str
    kind: str
    content: bytes


@dataclass(frozen=True)
class Sheet:
    """Thumbnails by method. ``small``: the images are smaller than their thumbnail and should show their own pixels."""

    columns: tuple[Sample, ...]
    rows: Mapping[str, tuple[Thumbnail, ...]]
    small: bool
    left_out: int

    @property
    def size(self) -> int:
        """Bytes of all thumbnails."""
        return sum(len(thumbnail.content) for row in self.rows.values() for thumbnail in row)


def stored_samples(run: Run) -> dict[str, dict[int, Sample]]:
    """The images that are still on disk, by method and index, without methods that have none."""
    listed = {
        label: {s.index: s for s in samples_of(run, label) if s.path.exists()} for label in method_order(run) if label != A_A
    }
    return {label: samples for label, samples in listed.items() if samples}


def sample_sheet(stored: Mapping[str, Mapping[int, Sample]]) -> Sheet | None:
    """Up to 8 samples with different prompts that every shown method has an image of; None where there is no such sample."""
    shown = dict(list(stored.items())[:DRAWN])
    columns = choose(list(shown.values()))
    if not columns:
        return None
    small = is_small(columns[0])
    rows = {label: tuple(thumbnail(label, samples[c.index], small) for c in columns) for label, samples in shown.items()}
    return Sheet(tuple(columns), rows, small, len(stored) - len(shown))


def is_small(sample: Sample) -> bool:
    """Whether an image is smaller than its thumbnail, so that it should show its own pixels."""
    return max(_open(sample.path).size) < CELL


def thumbnail(label: str, sample: Sample, small: bool) -> Thumbnail:
    """A small image at its own size, a larger one at twice the size of its place, for sharp screens; encoded again in any case.

    So a page holds the pixels of an image, and nothing else that its file may hold.
    """
    name = f"{slug(label)}-{sample.index:06d}"
    image, buffer = _open(sample.path), io.BytesIO()
    if small and max(image.size) < CELL:
        image.save(buffer, format="PNG", optimize=True)
        return Thumbnail(f"{name}.png", "image/png", buffer.getvalue())
    image.thumbnail((2 * CELL, 2 * CELL), Image.Resampling.LANCZOS)
    image.save(buffer, format="WEBP", quality=80)
    return Thumbnail(f"{name}.webp", "image/webp", buffer.getvalue())


def paper_grid(stored: Mapping[str, Mapping[int, Sample]]) -> bytes | None:
    """The same choice of samples as one PNG with labels; None where there is no sample that all have."""
    if (canvas := labelled_grid(stored)) is None:
        return None
    buffer = io.BytesIO()
    canvas.save(buffer, format="PNG")  # twelve times as fast as optimised, and 2% larger
    return buffer.getvalue()


def labelled_grid(stored: Mapping[str, Mapping[int, Sample]]) -> Image.Image | None:
    """The chosen samples of the first methods; None where there is no sample that all have."""
    rows = dict(list(stored.items())[:PAPER_ROWS])
    columns = choose(list(rows.values()))
    if not columns:
        return None
    return grid_of(rows, columns)


def grid_of(rows: Mapping[str, Mapping[int, Sample]], columns: Sequence[Sample]) -> Image.Image:
    """A row for each method and a column for each sample, RGB, with the labels and the prompts as text."""
    font = _font()
    headings = [wrap(sample.prompt, font, CELL, 4) for sample in columns]
    labels = {label: wrap(label, font, LABEL_WIDTH - 2 * GAP, 5) for label in rows}
    top = max(len(lines) for lines in headings) * (TEXT + 4) + 2 * GAP
    size = (LABEL_WIDTH + len(columns) * (CELL + GAP) + GAP, top + len(rows) * (CELL + GAP) + GAP)
    canvas = Image.new("RGB", size, PAPER)
    draw = ImageDraw.Draw(canvas)
    for j, lines in enumerate(headings):
        draw.multiline_text((LABEL_WIDTH + j * (CELL + GAP), GAP), "\n".join(lines), INK, font, spacing=4)
    for i, (label, samples) in enumerate(rows.items()):
        y = top + i * (CELL + GAP)
        draw.multiline_text((GAP, y + CELL / 2), "\n".join(labels[label]), INK, font, anchor="lm", spacing=4)
        for j, sample in enumerate(columns):
            canvas.paste(_cell(samples[sample.index].path), (LABEL_WIDTH + j * (CELL + GAP), y))
    return canvas


def choose(rows: Sequence[Mapping[int, Sample]]) -> list[Sample]:
    """Samples that all rows hold: first those with a prompt not seen yet, then, where prompts run out, repeated ones."""
    if not rows:
        return []
    shared = sorted(set.intersection(*(set(row) for row in rows)))
    first: dict[str, int] = {}
    for index in shared:
        first.setdefault(rows[0][index].prompt, index)
    distinct = sorted(first.values())
    repeated = [index for index in shared if index not in set(distinct)]
    spread = [distinct[i * len(distinct) // COLUMNS] for i in range(COLUMNS)] if len(distinct) > COLUMNS else distinct
    return [rows[0][index] for index in sorted((spread + repeated)[:COLUMNS])]


def wrap(text: str, font: ImageFont.FreeTypeFont, width: int, most: int) -> list[str]:
    """Break text into at most ``most`` lines of ``width`` pixels, inside a word where it must; the rest becomes an ellipsis."""
    lines, line = [], ""
    for word in " ".join(text.split()).split(" "):
        candidate = f"{line} {word}".strip()
        if font.getlength(candidate) <= width:
            line = candidate
            continue
        if line:
            lines.append(line)
        line = word
        while font.getlength(line) > width:
            fits = max(1, max((n for n in range(1, len(line)) if font.getlength(line[:n]) <= width), default=1))
            lines.append(line[:fits])
            line = line[fits:]
    lines.append(line)
    if len(lines) <= most:
        return lines
    last = lines[most - 1]
    while last and font.getlength(last + " …") > width:
        last = last[:-1]
    return [*lines[: most - 1], last.rstrip() + " …"]


def _font() -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"), TEXT)


def _cell(path: Path) -> Image.Image:
    """The image at 128 pixels: nearest neighbour upwards, so that small images show their own pixels; Lanczos downwards."""
    image = _open(path)
    scale = CELL / max(image.size)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    return image.resize(size, Image.Resampling.NEAREST if scale >= 1 else Image.Resampling.LANCZOS)


def _open(path: Path) -> Image.Image:
    image = open_image(path).convert("RGB")
    image.info.clear()  # profiles and comments, which would be saved with it
    return image
