"""Rebuild the bundled models: ``python -m zoo.recipes.build NAME`` (seeded, resumable, with progress bars).

Names: tiny-dit, tiny-pixart, tiny-sd3 (on tiny-pixart's autoencoder), scorers, references, tiny-pixart/ilf (also ilf-adapter and
ilf-paper, and those of tiny-dit), tiny-dit-small, tiny-pixart-small, METHOD-MODEL for every learned or searched rival
(harmonica-tiny-dit), or all.
"""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import torch
import typer
from diffusers import AutoencoderKL, DDIMScheduler, DiTPipeline, DPMSolverMultistepScheduler, PixArtAlphaPipeline

from baselines.learned.train import TRAININGS
from harness.errors import HarnessError, UsageError
from harness.storage.files import write_bytes
from harness.training.fit import TrainRecord, TrainSettings
from zoo.recipes import digits, emoji
from zoo.recipes.backbone import build_class_denoiser, build_text_denoiser, train_backbone
from zoo.recipes.cards import write_card
from zoo.recipes.flow import build_pipeline, train_flow
from zoo.recipes.ilf import RECIPES as ILF_RECIPES
from zoo.recipes.ilf import build_ilf
from zoo.recipes.reference import build_references
from zoo.recipes.rivals import MODELS, build_rival
from zoo.recipes.scorers import train_scorers
from zoo.recipes.seal import seal
from zoo.recipes.small import SMALL_RECIPES, build_small_sibling
from zoo.recipes.vae import train_vae

ZOO = Path(__file__).resolve().parents[1]
WORK = Path("zoo-work")


@dataclass(frozen=True)
class Recipe:
    """Step counts and learning rate of one backbone and its autoencoder."""

    data: str
    vae_steps: int
    steps: int
    lr: float = 1e-3
    batch: int = 128


RECIPES = {
    "tiny-dit": Recipe("digits", 1200, 4500),
    "tiny-pixart": Recipe("emoji", 3600, 9500),
}
FLOW_RECIPES = {"tiny-sd3": Recipe("emoji", 0, 7000, lr=2e-3, batch=96)}  # the autoencoder is tiny-pixart's


def _vae(recipe: Recipe, work: Path) -> tuple[AutoencoderKL, TrainRecord]:
    vae, record = train_vae(recipe.data, work, recipe.vae_steps)
    return vae.eval(), record


def save_labels(folder: Path, names: list[str]) -> None:
    """Put class names into a saved DiTPipeline's index, where ``from_pretrained`` looks; ``save_pretrained`` drops them."""
    index = folder / "model_index.json"
    content = json.loads(index.read_text(encoding="utf-8")) | {"id2label": {str(i): name for i, name in enumerate(names)}}
    write_bytes(index, (json.dumps(content, indent=2) + "\n").encode())


def build_backbone(name: str, work: Path, out: Path) -> None:
    """Autoencoder, transformer (with its text encoder), and the pipeline saved in half precision but for the text encoder."""
    recipe = RECIPES[name]
    vae, vae_record = _vae(recipe, work)
    settings = TrainSettings(steps=recipe.steps, lr=recipe.lr, ema=0.9995, weight_decay=0.01, warmup=300)
    if recipe.data == "emoji":
        model, tokenizer = build_text_denoiser()
        record = train_backbone(model, recipe.data, vae, work, settings, recipe.batch, f"backbone-{recipe.data}")
        pipe = PixArtAlphaPipeline(tokenizer, model.text_encoder, vae, model.transformer, DPMSolverMultistepScheduler())
        prompts = emoji_prompts()
    else:
        denoiser = build_class_denoiser()
        record = train_backbone(denoiser, recipe.data, vae, work, settings, recipe.batch, f"backbone-{recipe.data}")
        pipe = DiTPipeline(denoiser.transformer, vae, DDIMScheduler(clip_sample=False))
        prompts = {"all": digits.captions()}
    folder = out / name
    pipe.to(torch.float16)
    if recipe.data == "emoji":
        pipe.text_encoder.float()  # transformers loads it in the dtype of the file, diffusers the rest in float32
    pipe.save_pretrained(folder, safe_serialization=True)
    if recipe.data == "digits":
        save_labels(folder, digits.captions())
    save_prompts(folder, prompts)
    vae_record.save(folder / "training-vae.json")
    record.save(folder / "training-transformer.json")
    write_card(folder)


def emoji_prompts() -> dict[str, list[str]]:
    """All captions, those that accelerators are trained on, and those that they are judged on."""
    return {"all": emoji.captions(), "train": emoji.split_captions("train"), "held-out": emoji.split_captions("held-out")}


def save_prompts(folder: Path, prompts: dict[str, list[str]]) -> None:
    """One text file a part, one prompt a line."""
    for part, lines in prompts.items():
        write_bytes(folder / f"prompts-{part}.txt", ("\n".join(lines) + "\n").encode())


def build_flow(name: str, work: Path, out: Path) -> None:
    """A flow-matching transformer with its text encoders, on the autoencoder of tiny-pixart, saved in half precision."""
    recipe, folder = FLOW_RECIPES[name], out / name
    pipe = build_pipeline(AutoencoderKL.from_pretrained(out / "tiny-pixart" / "vae", dtype=torch.float32).eval())
    settings = TrainSettings(steps=recipe.steps, lr=recipe.lr, ema=0.9995, weight_decay=0.01, warmup=300)
    record = train_flow(pipe, work, settings, recipe.batch)
    pipe.to(torch.float16)
    for encoder in (pipe.text_encoder, pipe.text_encoder_2, pipe.text_encoder_3):
        encoder.float()  # as tiny-pixart's
    pipe.save_pretrained(folder, safe_serialization=True)
    save_prompts(folder, emoji_prompts())
    shutil.copy(out / "tiny-pixart" / "training-vae.json", folder)
    record.save(folder / "training-transformer.json")
    write_card(folder)


def build(name: str, work: Path, out: Path) -> None:
    """Build one part of the zoo."""
    if name in RECIPES:
        build_backbone(name, work, out)
    elif name in FLOW_RECIPES:
        build_flow(name, work, out)
    elif name == "scorers":
        for part, record in train_scorers(work, out / "scorers").items():
            record.save(out / "scorers" / f"training-{part}.json")
        write_card(out / "scorers")
    elif name == "references":
        build_references(out)
    elif name in SMALL_RECIPES:
        build_small_sibling(name, work, out)
    elif name in RIVALS:
        build_rival(*RIVALS[name], work, out)
    else:
        build_ilf(name, work, out)
    seal(out)


RIVALS = {f"{method}-{model}": (method, model) for model in MODELS for method in TRAININGS}
NAMES = (*RECIPES, *FLOW_RECIPES, "scorers", "references", *ILF_RECIPES, *SMALL_RECIPES, *RIVALS)


def main(
    name: Annotated[str, typer.Argument(help=", ".join(NAMES) + ", or all")],
    work: Annotated[Path, typer.Option(help="Checkpoints of trainings; delete it to start over.")] = WORK,
    out: Annotated[Path, typer.Option(help="Where the finished folders go.")] = ZOO,
    threads: Annotated[int, typer.Option(help="CPU threads; those of OMP_NUM_THREADS unless named.")] = torch.get_num_threads(),
) -> None:
    """Train and save one part of the zoo."""
    torch.set_num_threads(threads)
    try:
        if name not in (*NAMES, "all"):
            raise UsageError(expected=", ".join(NAMES), got=repr(name), remedy="name one, or all")
        for part in NAMES if name == "all" else (name,):
            build(part, work, out)
    except HarnessError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(error.exit_code) from None


if __name__ == "__main__":
    typer.run(main)
