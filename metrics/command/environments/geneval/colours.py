"""How GenEval (Ghosh et al., 2023) names an object's colour: what CLIP is shown and told, and which colour is nearest."""

from __future__ import annotations

from objects import COLOURS
from PIL import Image

GREY = "#999"  # of everything beside the object


def shown(image, found):
    """The object's pixels, RGB, cut to its box, on grey."""
    blank = Image.new("RGB", image.size, GREY)
    alone = image if found.mask is None else Image.composite(image, blank, found.mask)
    return alone.crop(tuple(round(edge) for edge in found.box))


def texts(name):
    """Three of each colour in turn, for an object of a class: the authors' templates."""
    return [
        text
        for colour in COLOURS
        for text in (f"a photo of a {colour} {name}", f"a photo of a {colour}-colored {name}", f"a photo of a {colour} object")
    ]


def nearest(image, told):
    """The colour whose texts' mean has the largest cosine with an image.

    ``image`` [d] and ``told`` [30, d], of :func:`texts`, are embeddings of unit length in torch.
    """
    means = told.unflatten(0, (len(COLOURS), -1)).mean(dim=1)
    return COLOURS[int((means / means.norm(dim=-1, keepdim=True) @ image).argmax())]
