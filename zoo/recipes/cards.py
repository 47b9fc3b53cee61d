"""Model cards: data and licence, recipe, training time and machine, quality. Written from the records beside the weights."""

from __future__ import annotations

import json
from pathlib import Path

from harness.storage.files import write_bytes

ABOUT = {
    "tiny-dit": (
        "Class-to-image: `DiTPipeline`, 12 blocks of width 96 on 16 tokens of an 8x8x4 latent, 32x32 pixels, 10 classes.",
        "scikit-learn's bundled handwritten digits (UCI Optical Recognition of Handwritten Digits, CC BY 4.0); the first 80%, "
        "shifted by up to one pixel.",
    ),
    "tiny-pixart": (
        "Text-to-image: `PixArtAlphaPipeline`, 12 blocks of width 128 with cross-attention on 16 tokens of an 8x8x4 latent, "
        "32x32 pixels, 298 captions, a two-layer T5 encoder with a word vocabulary trained along.",
        "Noto Color Emoji (Debian package fonts-noto-color-emoji, SIL Open Font Licence 1.1) drawn with Pillow, captioned by "
        "Unicode names; scaled, shifted, flipped where the name allows, on six background tints.",
    ),
    "tiny-sd3": (
        "Text-to-image: `StableDiffusion3Pipeline`, 12 blocks of two streams of width 96 on 16 tokens of an 8x8x4 latent and 16 "
        "of the caption, flow matching, 32x32 pixels, 298 captions; two two-layer CLIP encoders and a two-layer T5, all trained. "
        "The autoencoder is tiny-pixart's.",
        "As tiny-pixart's.",
    ),
    "tiny-dit-28": (
        "The deep sibling of tiny-dit: 28 blocks of width 64. All else is tiny-dit's.",
        "As tiny-dit's.",
    ),
    "tiny-sd3-grey": (
        "A fine-tuned sibling of tiny-sd3: a merged change of rank 8 of its blocks' linear layers. All else is tiny-sd3's.",
        "As tiny-sd3's, without colours.",
    ),
    "tiny-dit-small": (
        "The smaller sibling of tiny-dit, for T-Stitch: the transformer alone, 6 blocks of width 64. Latents, classes and noise "
        "schedule are tiny-dit's.",
        "As tiny-dit's.",
    ),
    "tiny-pixart-small": (
        "The smaller sibling of tiny-pixart, for T-Stitch: the transformer alone, 6 blocks of width 80. Latents, noise schedule "
        "and the (frozen) text encoder are tiny-pixart's.",
        "As tiny-pixart's.",
    ),
    "scorers": (
        "TINY scorers: an image-text encoder (`CLIPModel`), a reward model and two image classifiers. Their numbers compare "
        "methods inside one report. They are NOT the published CLIP score, CLIP-IQA, ImageReward or FID, and never to be "
        "set beside them.",
        "Both data sets above, with copies degraded by known amounts (noise, blur, dull colours, missing parts).",
    ),
}


def write_card(folder: Path, recipe: str = "zoo.recipes.build {}") -> None:
    """(Re)write README.md of a zoo folder from its training and quality records; ``recipe`` is the module that builds it."""
    what, data = ABOUT[folder.name]
    lines = [f"# {folder.name}", "", what, "", f"**Data and licence.** {data} The weights are under the project's licence.", ""]
    lines += [f"**Recipe.** `python -m {recipe.format(folder.name)}` (seeded, resumable).", ""]
    lines += ["| training | steps | seconds | machine | threads | final loss |", "|---|---|---|---|---|---|"]
    for path in sorted([*folder.glob("training*.json"), *folder.glob("*/training.json")]):
        record = json.loads(path.read_text(encoding="utf-8"))
        name = path.stem.removeprefix("training-") if path.parent == folder else path.parent.name
        machine = f"{record['machine']} ({record['device']})"
        cells = (
            name,
            record["settings"]["steps"],
            f"{record['seconds']:.0f}",
            machine,
            record["threads"],
            f"{record['final_loss']:.4f}",
        )
        lines.append(f"| {' | '.join(map(str, cells))} |")
    lines += ["", "The machine was shared with other work: seconds are upper bounds."]
    quality = folder / "quality.json"
    if quality.exists():
        lines += [
            "",
            f"**Quality** (`python -m zoo.recipes.check {folder.name}`, held-out seed, full 20 steps with guidance):",
            "",
        ]
        lines += [
            f"- {name.replace('_', ' ')}: {value}" for name, value in json.loads(quality.read_text(encoding="utf-8")).items()
        ]
    write_bytes(folder / "README.md", ("\n".join(lines) + "\n").encode())
