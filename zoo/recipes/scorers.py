"""Recipe of the tiny scorers: an image-text encoder with quality prompts, a reward model, and two classifiers.

All four learn from real images and from damage of known kind and strength (:mod:`metrics.bundled.degradations`); no human label
and no generated image is involved. ``evaluate_scorers`` judges them on augmentation draws they were not trained on.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn
from transformers import CLIPModel

from harness.sampling.precision import autocast
from harness.training.fit import TrainRecord, TrainSettings, fit
from metrics.bundled import tiny
from metrics.bundled.degradations import KINDS, degrade, draw_damage
from metrics.bundled.networks import PROMPT_PAIRS, BundledNetworks
from metrics.frechet import frechet_distance
from zoo.recipes import digits, emoji
from zoo.recipes.text import build_tokenizer

CLIP_STEPS, REWARD_STEPS, DIGIT_STEPS, EMOJI_STEPS = 1500, 1500, 400, 1200
EMOJI_ROWS, DIGIT_ROWS = 80, 16
LIGHT = 0.35  # images damaged up to this strength must still be recognised
CLEAN_SHARE = 0.35
IQA_WEIGHT = 0.5
DAMAGE_WEIGHT, SIZE_WEIGHT = 20.0, 2e-3
STRENGTH_GAP = 0.2  # between the two strengths of one damage in a ranked pair
PAIRS = ("good", "clean", "colourful")
EMOJI_COUNT = len(emoji.captions())


def all_captions() -> list[str]:
    """The 298 emoji captions, then the ten digit captions: a label of this module indexes this list."""
    return emoji.captions() + digits.captions()


@dataclass(frozen=True)
class Drawn:
    """Real images uint8 [B, 3, 32, 32] with labels int64 [B] into :func:`all_captions`."""

    images: torch.Tensor
    labels: torch.Tensor


def draw_emoji(generator: torch.Generator, rows: int) -> Drawn:
    """Emoji under random augmentations."""
    index = torch.randint(EMOJI_COUNT, (rows,), generator=generator)
    return Drawn(emoji.render(index, emoji.draw_augmentation(index, generator)), index)


def draw_digits(generator: torch.Generator, rows: int, part: str = "train") -> Drawn:
    """Digits of one part, shifted by up to a pixel either way."""
    images, labels = digits.split(part)
    index = torch.randint(len(images), (rows,), generator=generator)
    shift = 2 * torch.rand(rows, 2, generator=generator) - 1
    return Drawn(digits.render(images[index], shift), labels[index] + EMOJI_COUNT)


def draw_both(
    generator: torch.Generator, emoji_rows: int = EMOJI_ROWS, digit_rows: int = DIGIT_ROWS, part: str = "train"
) -> Drawn:
    """Emoji first, digits last."""
    first, last = draw_emoji(generator, emoji_rows), draw_digits(generator, digit_rows, part)
    return Drawn(torch.cat([first.images, last.images]), torch.cat([first.labels, last.labels]))


def draw_lightly_damaged(drawn: Drawn, generator: torch.Generator) -> torch.Tensor:
    """The images with light damage on the share that is not kept clean."""
    n = len(drawn.labels)
    strength = LIGHT * torch.rand(n, generator=generator) * (torch.rand(n, generator=generator) > CLEAN_SHARE)
    return degrade(drawn.images, draw_damage(drawn.images, generator), strength)


def iqa_targets(kind: torch.Tensor, strength: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """The wanted probability of the first prompt of each pair in :data:`PAIRS`, float32 [B, 3].

    Good falls with any damage, clean with noise only, colourful with dulling only; the white-on-black digits have no colour.
    """
    noisy = strength * (kind == KINDS.index("noise"))
    dulled = strength * (kind == KINDS.index("dull"))
    soft = torch.stack([1 - (1.5 * s).clamp(max=1) for s in (strength, noisy, dulled)], dim=1)
    soft[:, 2] *= labels < EMOJI_COUNT
    return soft


def clip_loss(clip: CLIPModel, tokens: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Contrastive loss on recognisable rows plus the prompt-pair loss on all; ``tokens`` are captions, then prompt pairs."""
    drawn = draw_both(generator)
    n = len(drawn.labels)
    damage = draw_damage(drawn.images, generator)
    strength = torch.rand(n, generator=generator) * (torch.rand(n, generator=generator) > CLEAN_SHARE)
    light = torch.rand(n, generator=generator) < 0.5
    strength = torch.where(light, LIGHT * strength, strength)
    pixels = tiny.to_unit(degrade(drawn.images, damage, strength))
    with autocast():
        image, text = tiny.embed_images(clip, pixels), tiny.embed_tokens(clip, tokens)
    scale = clip.logit_scale.float().clamp(max=4.6).exp()
    logits = scale * F.normalize(image.float(), dim=-1) @ F.normalize(text.float(), dim=-1).T
    captions = len(tokens) - 2 * len(PAIRS)
    known = strength <= LIGHT
    named, labels = logits[known, :captions], drawn.labels[known]
    to_image = -F.log_softmax(named, dim=0).gather(1, labels[:, None]).mean()
    pairs = logits[:, captions:].reshape(n, len(PAIRS), 2)
    probability_logit = pairs[..., 0] - pairs[..., 1]
    quality = F.binary_cross_entropy_with_logits(probability_logit, iqa_targets(damage.kind, strength, drawn.labels))
    return F.cross_entropy(named, labels) + 0.5 * to_image + IQA_WEIGHT * len(PAIRS) * quality


@torch.no_grad()
def fit_projection(clip: CLIPModel) -> tuple[torch.Tensor, torch.Tensor]:
    """The 24 leading principal directions [24, d] (orthonormal rows) of real emoji's embeddings, and their mean [d]."""
    generator = torch.Generator().manual_seed(77)
    embeddings = torch.cat([tiny.embed_images(clip, tiny.to_unit(draw_emoji(generator, 256).images)) for _ in range(12)]).double()
    mean = embeddings.mean(dim=0)
    _, vectors = torch.linalg.eigh((embeddings - mean).T @ (embeddings - mean))
    return vectors.flip(1)[:, : tiny.FRECHET_WIDTH].T.float().contiguous(), mean.float()


def train_clip(work: Path, out: Path, scale: float = 1.0) -> TrainRecord:
    """Train the image-text encoder with its quality prompts and save it under ``out/clip``."""
    torch.manual_seed(0)
    tokenizer = build_tokenizer()
    clip = tiny.build_clip(len(tokenizer))
    clip.logit_scale.data.fill_(3.0)
    prompts = [prompt for name in PAIRS for prompt in PROMPT_PAIRS[name]]
    tokens = tiny.tokenize(tokenizer, all_captions() + prompts)
    tokens = tokens[:, : int((tokens != 0).sum(dim=1).max())]  # causal: the padding behind the end never mattered
    settings = TrainSettings(round(CLIP_STEPS * scale), lr=1.5e-3, warmup=100, weight_decay=0.02, ema=0.99, checkpoint_every=100)
    record = fit(clip, lambda g: clip_loss(clip, tokens, g), settings, work / "clip.pt", "clip")
    shutil.rmtree(out / "clip", ignore_errors=True)
    tiny.round_to_stored(clip)
    tiny.save_clip(clip, tokenizer, *fit_projection(clip), out / "clip")
    return record


def classifier_loss(model: tiny.ImageClassifier, drawn: Drawn, offset: int, generator: torch.Generator) -> torch.Tensor:
    """Cross-entropy on recognisable rows plus the squared error of the damage strengths, through noisy features.

    Unit noise on the features and a penalty on their size make a feature worth its scale: what the heads need is spread
    over several noise deviations, what they do not need stays small. ``offset`` is the first label of the data set.
    """
    n = len(drawn.labels)
    damage = draw_damage(drawn.images, generator)
    strength = torch.rand(n, generator=generator) * (torch.rand(n, generator=generator) > CLEAN_SHARE)
    strength = torch.where(torch.rand(n, generator=generator) < 0.5, LIGHT * strength, strength)
    pixels = tiny.to_unit(degrade(drawn.images, damage, strength))
    with autocast():
        features = model.embed(pixels)
    features = features.float()
    noisy = features + torch.randn(features.shape, generator=generator)
    wanted = strength[:, None] * F.one_hot(damage.kind, len(KINDS))
    strengths: torch.Tensor = DAMAGE_WEIGHT * (model.damage(noisy) - wanted).square().sum(dim=1).mean()
    known = strength <= LIGHT
    named = F.cross_entropy(model.classify(noisy)[known], drawn.labels[known] - offset)
    return named + strengths + SIZE_WEIGHT * features.square().sum(dim=1).mean()


def train_digit_classifier(work: Path, out: Path, scale: float = 1.0) -> TrainRecord:
    """Ten classes, 24 features, the training digits only; saved under ``out/digit-classifier``."""
    torch.manual_seed(0)
    model = tiny.ImageClassifier(classes=10, features=tiny.FRECHET_WIDTH)
    settings = TrainSettings(round(DIGIT_STEPS * scale), lr=2e-3, warmup=50, weight_decay=0.01, ema=0.98, checkpoint_every=100)

    def loss(generator: torch.Generator) -> torch.Tensor:
        return classifier_loss(model, draw_digits(generator, 64), EMOJI_COUNT, generator)

    record = fit(model, loss, settings, work / "digit-classifier.pt", "digit classifier")
    tiny.save_network(model, out / "digit-classifier")
    return record


def train_emoji_classifier(work: Path, out: Path, scale: float = 1.0) -> TrainRecord:
    """298 classes, 64 features; saved under ``out/emoji-classifier``."""
    torch.manual_seed(0)
    model = tiny.ImageClassifier(classes=EMOJI_COUNT, features=64)
    settings = TrainSettings(round(EMOJI_STEPS * scale), lr=2e-3, warmup=50, weight_decay=0.01, ema=0.99, checkpoint_every=100)

    def loss(generator: torch.Generator) -> torch.Tensor:
        return classifier_loss(model, draw_emoji(generator, 64), 0, generator)

    record = fit(model, loss, settings, work / "emoji-classifier.pt", "emoji classifier")
    tiny.save_network(model, out / "emoji-classifier")
    return record


def two_strengths(drawn: Drawn, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """The same damage twice, less and more: strengths at least 0.2 apart; every third row's better image is undamaged."""
    n = len(drawn.labels)
    damage = draw_damage(drawn.images, generator)
    low = (1 - STRENGTH_GAP) * torch.rand(n, generator=generator) * (torch.rand(n, generator=generator) > 1 / 3)
    high = low + STRENGTH_GAP + (1 - STRENGTH_GAP - low) * torch.rand(n, generator=generator)
    return degrade(drawn.images, damage, low), degrade(drawn.images, damage, high)


def reward_loss(model: tiny.RewardModel, texts: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """-log sigmoid(better - worse): two strengths of one damage, and the own prompt against those of the other rows."""
    drawn = draw_both(generator, 48, 10)
    n = len(drawn.labels)
    better, worse = two_strengths(drawn, generator)
    whole = draw_lightly_damaged(drawn, generator)
    text = texts[drawn.labels]
    pixels = tiny.to_unit(torch.cat([better, worse, whole]))
    with autocast():
        seen = model.see(pixels)
        a, b, c = seen.chunk(3)
        ranked = F.softplus(model.judge(b, text) - model.judge(a, text)).mean()
        table = model.judge(c[:, None].expand(n, n, -1), text[None].expand(n, n, -1))
    other = drawn.labels[:, None] != drawn.labels[None]
    wrong = F.softplus(table - table.diagonal()[:, None])[other]
    return ranked + wrong.mean() + 1e-3 * table.diagonal().square().mean()


@torch.no_grad()
def _standardise(model: tiny.RewardModel, texts: torch.Tensor) -> None:
    """Set the buffers so that scores over real and damaged images with their own prompts have mean 0 and deviation 1."""
    generator = torch.Generator().manual_seed(78)
    scores = []
    for _ in range(8):
        drawn = draw_both(generator, 96, 16)
        damaged = degrade(drawn.images, draw_damage(drawn.images, generator), torch.rand(len(drawn.labels), generator=generator))
        scores += [model(tiny.to_unit(images), texts[drawn.labels]) for images in (drawn.images, damaged)]
    everything = torch.cat(scores)
    model.mean.fill_(everything.mean())
    model.std.fill_(everything.std())


def train_reward(work: Path, out: Path, scale: float = 1.0) -> TrainRecord:
    """Train the reward model on the frozen text tower of ``out/clip``; saved under ``out/reward``."""
    texts = F.normalize(tiny.TinyClip(out / "clip").embed_texts(all_captions()), dim=-1)
    torch.manual_seed(0)
    model = tiny.RewardModel(text=texts.shape[1])
    settings = TrainSettings(round(REWARD_STEPS * scale), lr=2e-3, warmup=50, weight_decay=0.01, ema=0.99, checkpoint_every=100)
    record = fit(model, lambda g: reward_loss(model, texts, g), settings, work / "reward.pt", "reward")
    tiny.round_to_stored(model)
    _standardise(model, texts)
    tiny.save_network(model, out / "reward")
    return record


def train_scorers(work: Path, out: Path, scale: float = 1.0) -> dict[str, TrainRecord]:
    """Train all scorers into ``out``; ``scale`` multiplies every step count. Checkpoints in ``work`` make it resumable."""
    recipes = {
        "digit-classifier": train_digit_classifier,
        "clip": train_clip,
        "reward": train_reward,
        "emoji-classifier": train_emoji_classifier,
    }
    return {name: train(work, out, scale) for name, train in recipes.items()}


def area_under_curve(positive: torch.Tensor, negative: torch.Tensor) -> float:
    """The probability that a positive's score exceeds a negative's, ties as one half."""
    above = (positive[:, None] > negative[None]).double() + 0.5 * (positive[:, None] == negative[None]).double()
    return above.mean().item()


def _damaged(drawn: Drawn, kind: str | None, generator: torch.Generator) -> torch.Tensor:
    """Strengths 0.5..1 of one kind of damage, or of any kind."""
    damage = draw_damage(drawn.images, generator)
    if kind is not None:
        damage.kind.fill_(KINDS.index(kind))
    return degrade(drawn.images, damage, 0.5 + 0.5 * torch.rand(len(drawn.labels), generator=generator))


@torch.no_grad()
def evaluate_clip(out: Path, generator: torch.Generator, rows: int = 600) -> dict[str, float]:
    """Caption retrieval among all 308 captions (digits: the held-out part), and the three prompt pairs' areas under the curve."""
    clip = tiny.TinyClip(out / "clip")
    texts = F.normalize(clip.embed_texts(all_captions()), dim=-1)
    emojis, numbers = draw_emoji(generator, rows), draw_digits(generator, rows // 2, "held-out")
    result = {}
    for name, drawn in (("emoji", emojis), ("digits", numbers)):
        found = (F.normalize(clip.embed_images(drawn.images), dim=-1) @ texts.T).argmax(dim=1)
        result[f"caption_top1_{name}"] = (found == drawn.labels).float().mean().item()
    for name, kind in zip(PAIRS, (None, "noise", "dull"), strict=True):
        pair = F.normalize(clip.embed_texts(PROMPT_PAIRS[name]), dim=-1)
        clean, damaged = (
            F.normalize(clip.embed_images(images), dim=-1) @ (pair[0] - pair[1])
            for images in (emojis.images, _damaged(emojis, kind, generator))
        )
        result[f"auc_{name}"] = area_under_curve(clean, damaged)
    return result


@torch.no_grad()
def evaluate_reward(out: Path, generator: torch.Generator, rows: int = 1000) -> dict[str, float]:
    """How often the less damaged of a pair, and the right of two prompts, gets the higher reward."""
    clip = tiny.TinyClip(out / "clip")
    reward = tiny.TinyReward(out / "reward", clip)
    drawn = draw_both(generator, rows * 4 // 5, rows // 5, "held-out")
    captions = all_captions()
    own = [captions[i] for i in drawn.labels.tolist()]
    other = (drawn.labels + 1 + torch.randint(len(captions) - 1, drawn.labels.shape, generator=generator)) % len(captions)
    better, worse = two_strengths(drawn, generator)
    pairs = (reward(better, own) > reward(worse, own)).float().mean().item()
    real = reward(drawn.images, own)
    prompts = (real > reward(drawn.images, [captions[i] for i in other.tolist()])).float().mean().item()
    return {"reward_less_damaged": pairs, "reward_right_prompt": prompts, "reward_of_real": real.mean().item()}


@torch.no_grad()
def evaluate_classifiers(out: Path, generator: torch.Generator, rows: int = 600) -> dict[str, float]:
    """Accuracy on the held-out digits and on unseen augmentations of the emoji."""
    images, labels = digits.split("held-out")
    held_out = Drawn(digits.render(images), labels)
    result = {}
    for name, drawn in (("digit", held_out), ("emoji", draw_emoji(generator, rows))):
        model: nn.Module = tiny.load_classifier(out / f"{name}-classifier")
        found = model(tiny.to_unit(drawn.images)).argmax(dim=1)
        result[f"{name}_classifier_accuracy"] = (found == drawn.labels).float().mean().item()
    return result


def evaluate_frechet(out: Path, generator: torch.Generator, rows: int = 1000) -> dict[str, float]:
    """How many times larger FID is for images damaged at strength 0.4 than for the same images undamaged; 1 sees nothing."""
    result = {}
    for task, last in (("text", draw_emoji), ("class", draw_digits)):
        features = BundledNetworks(out, "text" if task == "text" else "class").frechet_features
        reference, drawn = last(generator, rows), last(generator, rows)
        damaged = degrade(drawn.images, draw_damage(drawn.images, generator), torch.full((rows,), 0.4))
        against = features(reference.images).numpy()
        plain, worse = (frechet_distance(features(images).numpy(), against) for images in (drawn.images, damaged))
        result[f"fid_of_damaged_over_real_{task}"] = worse / plain
    return result


def evaluate_scorers(out: Path, seed: int = 12_345) -> dict[str, float]:
    """Every number the zoo's checks hold against their bars; shares and areas in 0..1 and FID ratios, higher is better."""
    generator = torch.Generator().manual_seed(seed)
    return {
        **evaluate_clip(out, generator),
        **evaluate_reward(out, generator),
        **evaluate_classifiers(out, generator),
        **evaluate_frechet(out, generator),
    }
