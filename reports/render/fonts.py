"""The font of the paper's figures."""

from __future__ import annotations

import tempfile
from functools import cache
from pathlib import Path

from fontTools import subset
from fontTools.ttLib import TTFont
from matplotlib.font_manager import findfont, fontManager

WHOLE, NAME = "DejaVu Sans", "DejaVu Sans Plain"
LETTERS = (range(0x20, 0x180), range(0x2010, 0x2040), range(0x2190, 0x2194), range(0x2200, 0x2270))  # Latin, signs, arrows
FAMILY_NAMES, POSTSCRIPT_NAME = (1, 4, 16), 6  # entries of a font's table of names
_FOLDER = tempfile.TemporaryDirectory(prefix="ilf-bench-font-")  # matplotlib opens the file again for each figure


@cache
def plain_fonts() -> list[str]:
    """A family for matplotlib: DejaVu Sans cut down to Latin letters and signs, then the whole font for all others.

    A PDF holds the glyphs that it shows. fontTools cuts them out, and reads the whole font for each figure, which takes longer
    than to draw it; of a small font it is quick.
    """
    with TTFont(findfont(WHOLE), lazy=True) as font:
        options = subset.Options(layout_features=[], name_IDs=["*"], hinting=True, notdef_outline=True)
        options.drop_tables += ["GDEF", "GPOS", "GSUB", "MATH", "FFTM"]
        cutter = subset.Subsetter(options)
        cutter.populate(unicodes=[letter for letters in LETTERS for letter in letters])
        cutter.subset(font)
        for record in font["name"].names:
            if record.nameID in FAMILY_NAMES:
                record.string = NAME
            elif record.nameID == POSTSCRIPT_NAME:
                record.string = NAME.replace(" ", "")
        font.save(path := Path(_FOLDER.name) / "plain.ttf")
    fontManager.addfont(path)
    return [NAME, WHOLE]
