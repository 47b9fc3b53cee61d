"""Emoji as a text-to-image data set: Noto Color Emoji drawn with Pillow, captioned by their Unicode names.

The Debian package ``fonts-noto-color-emoji`` (SIL Open Font Licence 1.1) delivers the font. Every image is a known
emoji under a known augmentation, which is what lets the zoo's quality check ask for the nearest REAL image.
"""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw, ImageFont

from harness.errors import UsageError

FONT = Path("/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf")
IMAGE_SIZE = 32
RENDER_SIZE = 64  # augmented at twice the resolution, then averaged down

CURATED = {
    "animals": "🐀🐁🐄🐅🐇🐊🐋🐌🐍🐎🐏🐐🐒🐓🐔🐕🐖🐗🐘🐙🐚🐛🐜🐝🐞🐟🐠🐡🐢🐣🐤🐦🐧🐨🐩🐪🐬🐭🐮🐯🐰🐱🐲🐳🐴🐵🐶🐷🐸🐹🐺🐻🐼🐽"
    "🦀🦁🦂🦃🦄🦅🦆🦇🦈🦉🦊🦋🦌🦍🦎🦐🦑🦒🦓🦔🦕🦖",
    "food": "🌭🌮🌰🌶🌽🍄🍅🍆🍇🍈🍉🍊🍋🍌🍍🍎🍏🍐🍑🍒🍓🍔🍕🍖🍗"
    "🍙🍚🍞🍟🍡🍣🍤🍦🍨🍩🍪🍫🍬🍭🍮🍯🍰🍵🍷🍸🍺🍼🍿🥐🥑🥒🥓🥔🥕🥖🥚🥛🥝🥞🥥🥦🥨",
    "faces": "😀😂😇😈😉😋😍😎😐😛😠😡😢😭😮😱😴😷🙃🤐🤓🤔🤖🤠🤡🤢🥵🥶👻👽👾💀",
    "vehicles": "🚀🚁🚂🚃🚄🚌🚑🚒🚓🚕🚗🚙🚚🚛🚜🚢🚤🛵🛸🚲",
    "objects": "🌂🎀🎁🎂🎃🎄🎈🎉🎓🎤🎥🎧🎨🎩🎮🎲🎷🎸🎹🎺"
    "🎻🏀🏈🏆🏠🏰👑👒👓👔👕👖👗👛👜👞👟👠👢💄💉💊💍💎💡💣💰💻💾💿📕📗📘📙"
    "📞📦📷📺📻🔍🔑🔒🔔🔥🔦🔧🔨🔪",
    "nature and symbols": "🌈🌋🌍🌙🌞🌟🌱🌲🌳🌴🌵🌷🌸🌹🌻🍀🍁❤💔💙💚💛💜💥💧💬⚡⚽⚾⛄⭐🔴🔵🔶🔷🔺✅❌❗❓",
}

TINTS = (
    torch.tensor([[255, 255, 255], [255, 243, 214], [214, 234, 255], [222, 245, 222], [252, 222, 236], [226, 226, 232]]).float()
    / 255
)
SCALES = (0.8, 1.0)
SHIFT = 2.0  # pixels of the 32x32 image, either way
NEVER_FLIP = ("mark", "book", "digit", "musical", "saxophone", "guitar", "speech", "magnifying")


@dataclass(frozen=True)
class Augmentation:
    """One draw a row. ``scale`` in 0.8..1.0, ``shift`` [B, 2] in pixels, ``flip`` bool, ``tint`` an index into TINTS."""

    scale: torch.Tensor
    shift: torch.Tensor
    flip: torch.Tensor
    tint: torch.Tensor


def characters() -> list[str]:
    """The curated emoji, in a fixed order without repeats."""
    return list(dict.fromkeys("".join(CURATED.values())))


def captions() -> list[str]:
    """The lower-case Unicode name of each emoji, hyphens as spaces, in the order of :func:`characters`."""
    return [unicodedata.name(c).lower().replace("-", " ") for c in characters()]


def may_flip(caption: str) -> bool:
    """Whether the mirrored image still deserves its caption."""
    return not any(word in caption for word in NEVER_FLIP)


@cache
def sprites() -> torch.Tensor:
    """All emoji as premultiplied RGBA, float32 [n, 4, 64, 64] in 0..1."""
    if not FONT.exists():
        raise UsageError(
            expected=f"the Noto Color Emoji font at {FONT}",
            got="no such file",
            remedy="apt-get install fonts-noto-color-emoji",
        )
    font = ImageFont.truetype(str(FONT), 109)
    return torch.stack([_draw(c, font) for c in characters()])


def _draw(character: str, font: ImageFont.FreeTypeFont) -> torch.Tensor:
    canvas = Image.new("RGBA", (160, 160), (0, 0, 0, 0))
    ImageDraw.Draw(canvas).text((12, 16), character, font=font, embedded_color=True)
    box = canvas.getbbox()
    if box is None:
        raise UsageError(
            expected=f"a glyph for U+{ord(character):X}", got="an empty drawing", remedy="install a newer emoji font"
        )
    glyph = canvas.crop(box)
    side = max(glyph.size)
    square = Image.new("RGBA", (side, side), (0, 0, 0, 0))
    square.paste(glyph, ((side - glyph.width) // 2, (side - glyph.height) // 2))
    small = square.convert("RGBa").resize((RENDER_SIZE, RENDER_SIZE), Image.Resampling.LANCZOS)
    return torch.from_numpy(np.asarray(small).copy()).permute(2, 0, 1).float() / 255


def draw_augmentation(index: torch.Tensor, generator: torch.Generator) -> Augmentation:
    """A random augmentation for each emoji index [B]; flips only where the caption allows."""
    n = len(index)
    low, high = SCALES
    allowed = torch.tensor([may_flip(c) for c in captions()])[index]
    return Augmentation(
        scale=low + (high - low) * torch.rand(n, generator=generator),
        shift=SHIFT * (2 * torch.rand(n, 2, generator=generator) - 1),
        flip=(torch.rand(n, generator=generator) < 0.5) & allowed,
        tint=torch.randint(len(TINTS), (n,), generator=generator),
    )


def place(index: torch.Tensor, augmentation: Augmentation) -> torch.Tensor:
    """Scaled, shifted and flipped sprites, premultiplied RGBA float32 [B, 4, 32, 32] in 0..1; the tint is not used."""
    zoom = 0.94 * augmentation.scale
    mirror = torch.where(augmentation.flip, -1.0, 1.0)
    theta = torch.zeros(len(index), 2, 3)
    theta[:, 0, 0] = mirror / zoom
    theta[:, 1, 1] = 1 / zoom
    # the shift is in image pixels; grid coordinates span 2 over the width, and are mirrored with the image
    offset = -2 * augmentation.shift / IMAGE_SIZE / zoom[:, None]
    theta[:, 0, 2] = offset[:, 0] * mirror
    theta[:, 1, 2] = offset[:, 1]
    grid = F.affine_grid(theta, [len(index), 4, RENDER_SIZE, RENDER_SIZE], align_corners=False)
    moved = F.grid_sample(sprites()[index], grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    return F.avg_pool2d(moved, RENDER_SIZE // IMAGE_SIZE)


def composite(layers: torch.Tensor, tint: torch.Tensor) -> torch.Tensor:
    """Premultiplied RGBA [B, 4, H, W] over the background colour of each tint index [B]; float32 [B, 3, H, W]."""
    return layers[:, :3] + (1 - layers[:, 3:]) * TINTS[tint][:, :, None, None]


def render(index: torch.Tensor, augmentation: Augmentation) -> torch.Tensor:
    """Augmented images, uint8 [B, 3, 32, 32] RGB 0..255, for emoji indices [B]."""
    image = composite(place(index, augmentation), augmentation.tint)
    return (image.clamp(0, 1) * 255).round().to(torch.uint8)


HELD_OUT_EVERY = 4  # every fourth caption is never used to train or tune an accelerator


def split_captions(part: str) -> list[str]:
    """``train`` captions, on which accelerators are trained and tuned, or ``held-out`` ones, on which they are judged."""
    return [c for i, c in enumerate(captions()) if (i % HELD_OUT_EVERY == HELD_OUT_EVERY - 1) == (part == "held-out")]
