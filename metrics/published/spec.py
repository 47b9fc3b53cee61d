"""Which published networks score and where their weights are: one small YAML file (``scorers.yaml`` is the default)."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from harness.errors import UsageError
from harness.storage.documents import PRESET_BYTES, parse_yaml
from harness.storage.files import read_small
from metrics.command.spec import CommandSpec


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _Network(_Part):
    """``precision`` bf16 multiplies in bfloat16, faster on a GPU; scores then have another fingerprint. benchmarks/scoring.py."""

    precision: Literal["fp32", "bf16"] = "fp32"


class Inception(_Network):
    """torch-fidelity's Inception; ``weights`` is a local file, or the package downloads."""

    weights: Path | None = None


class OpenClip(_Network):
    """A model of open_clip; ``pretrained`` is one of its tags or a local state-dict file."""

    model: str
    pretrained: str


class ClipIqaBackbone(_Part):
    """A name or a local file that pyiqa's CLIP loader takes."""

    backbone: str = "RN50"


class ImageRewardWeights(_Part):
    """A folder with ImageReward.pt, med_config.json and a BERT vocabulary; without one the hub is asked."""

    folder: Path | None = None
    precision: Literal["fp32", "bf16"] = "fp32"


class DinoV2(_Network):
    """A hub id or a local folder in the layout of transformers."""

    model: str = "facebook/dinov2-large"


class LpipsWeights(_Part):
    """Local files of torchvision's AlexNet and VGG-16; without one, torchvision's own download folder is looked into."""

    alex: Path | None = None
    vgg: Path | None = None


class PickScoreWeights(_Part):
    """A hub id or a local folder of transformers each, of the model and of its tokenizer."""

    model: str = "yuvalkirstain/PickScore_v1"
    tokenizer: str = "laion/CLIP-ViT-H-14-laion2B-s32B-b79K"


class HpsV2(_Part):
    """HPS_v2.1_compressed.pt, a state dict of open_clip's ``model``."""

    model: str = "ViT-H-14"
    weights: Path | None = None


class Aesthetic(_Part):
    """sac+logos+ava1-l14-linearMSE.pth, on the CLIP of ``clip``."""

    weights: Path | None = None


class Scorers(_Part):
    """The whole file; a part that is left out keeps its default.

    ``bundled``: a folder of the tiny networks, which then serve instead of the published ones. ``commands``: programs that
    serve a metric each, by its name; only a file that the user names starts them.
    """

    bundled: Path | None = None
    commands: dict[str, CommandSpec] = {}

    inception: Inception = Inception()
    clip: OpenClip = OpenClip(model="ViT-L-14", pretrained="openai")
    clip_iqa: ClipIqaBackbone = ClipIqaBackbone()
    image_reward: ImageRewardWeights = ImageRewardWeights()
    cmmd: OpenClip = OpenClip(model="ViT-L-14-336", pretrained="openai")
    dinov2: DinoV2 = DinoV2()
    lpips: LpipsWeights = LpipsWeights()
    pickscore: PickScoreWeights = PickScoreWeights()
    hpsv2: HpsV2 = HpsV2()
    aesthetic: Aesthetic = Aesthetic()


def read_scorers(path: Path) -> Scorers:
    """The file at ``path``. Raises :class:`UsageError` with every wrong field."""
    try:
        content = parse_yaml(read_small(path, PRESET_BYTES))
    except (OSError, ValueError) as error:
        raise UsageError(
            expected=f"the folder of the bundled scorers, or a YAML file, at {path}",
            got=str(error),
            remedy="name zoo/scorers or a copy of metrics/published/scorers.yaml",
        ) from error
    try:
        return Scorers.model_validate({} if content is None else content)
    except ValidationError as error:
        lines = [f"{'.'.join(map(str, e['loc'])) or 'file'}: {e['msg']}" for e in error.errors()]
        known = ", ".join(Scorers.model_fields)
        raise UsageError(
            expected=f"parts out of {known} in {path}", got="; ".join(lines), remedy="compare with metrics/published/scorers.yaml"
        ) from error
