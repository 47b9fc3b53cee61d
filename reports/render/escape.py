"""Text from a run in other programs' formats: one function for each, which every writer of that format uses.

Labels, titles, reasons and prompts come from records, and records from anybody. (HTML is escaped by Jinja and markupsafe.)
"""

from __future__ import annotations

import re
import unicodedata

from harness.text import one_line, visible, without_credentials

FORMULA = "=+-@＝＋－＠"  # what a spreadsheet takes for the beginning of a formula
MARKUP = re.compile(r"([\\`*_|~$]|\](?=[(\[:]))")  # a bracket alone is none: intervals have brackets
BLOCK = re.compile(r"^([-+>#=\[])")  # what begins a list, a quote, a heading, a rule or a definition
NUMBERED = re.compile(r"^(\d+)([.)](?:\s|$))")
LINKS = (("@", "&#64;&NoBreak;"), ("://", "&#58;//"), ("www.", "www&#46;"), ("WWW.", "WWW&#46;"))
NOT_XML = re.compile(r"[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")  # XML 1.0 has no way to write these
TEX = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": "$<$",
    ">": "$>$",
    "|": "$|$",
    '"': "''",
    "[": "{[}",
    "]": "{]}",
    "×": r"$\times$",
    "±": r"$\pm$",
    "−": "$-$",
    "∞": r"$\infty$",
    "–": "--",
    "…": r"\ldots{}",
}
GREEK = ("ALPHA", "BETA", "GAMMA", "DELTA", "SIGMA", "TAU", "LAMDA")


def csv_text(text: str) -> str:
    """A cell that no spreadsheet takes for a formula: one that begins like it gets an apostrophe in front."""
    plain = visible(without_credentials(text))
    return f"'{plain}" if plain.lstrip()[:1] in tuple(FORMULA) else plain


def markdown_text(text: str) -> str:
    """Text that Markdown shows as it stands, on one line: no picture, no link, no HTML, and nobody is mentioned."""
    plain = MARKUP.sub(r"\\\1", one_line(text).replace("&", "&amp;").replace("<", "&lt;"))
    for sign, safe in LINKS:
        plain = plain.replace(sign, safe)
    return NUMBERED.sub(r"\1\\\2", BLOCK.sub(r"\\\1", plain))


def xml_text(text: str) -> str:
    """Text without credentials that XML 1.0 can hold; the writer of the elements does the rest."""
    return NOT_XML.sub("\ufffd", without_credentials(text))


def tex_text(text: str) -> str:
    """Text that LaTeX prints as it is. A sign that pdfLaTeX does not know becomes its code point, so that names stay distinct."""
    return "".join(_tex_sign(sign) for sign in " ".join(without_credentials(text).split()))


def _tex_sign(sign: str) -> str:
    if sign in TEX:
        return TEX[sign]
    if " " <= sign <= "~" or "À" <= sign <= "ſ":
        return sign
    words = unicodedata.name(sign, "").split()
    if words[:1] == ["GREEK"] and words[-2:-1] == ["LETTER"] and words[-1] in GREEK:
        letter = words[-1].lower().replace("lamda", "lambda")
        return f"$\\{letter if words[1] == 'SMALL' else letter.capitalize()}$"
    return f"U+{ord(sign):04X}"
