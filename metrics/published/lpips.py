"""LPIPS (Zhang et al., 2018) in plain torch: the convolutions of AlexNet or VGG-16 under linear heads fitted to human judgements.

torchmetrics' own implementation needs torchvision, which the light core must not contain; its wheel carries the linear heads
(version 0.1), which are read from there. The backbone's weights are a local file in torchvision's format.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import nn

from harness.errors import NotMeasured
from harness.models.reading import load_tensors
from metrics.published.packages import checked, digest, existing, frozen, images_at_once, weights_of
from metrics.remembered import RememberedImages

SHIFT, SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)  # ImageNet's mean and deviation for pixels in -1..1
EPSILON = 1e-8
MOST_BYTES = 3 * 2**30  # of rows kept of the full run's images: a range of 64 up to 1,100 px for AlexNet, 320 px for VGG-16
PREPROCESSING = "uint8 RGB, no resize, x / 127.5 - 1, ImageNet mean and deviation"
Layer = int | tuple[int, int, int, int]


@dataclass(frozen=True)
class Backbone:
    """A stack of convolutions as torchvision numbers it, and after which of its layers LPIPS looks.

    A tuple is a convolution (channels, kernel, stride, padding) with its rectifier, a number a pooling of that kernel, stride 2.
    """

    name: str
    file: str
    layers: tuple[Layer, ...]
    taps: tuple[int, ...]

    def build(self) -> nn.Sequential:
        """The layers, numbered as in torchvision's ``features``."""
        built: list[nn.Module] = []
        channels = 3
        for layer in self.layers:
            if isinstance(layer, int):
                built.append(nn.MaxPool2d(layer, 2))
                continue
            width, kernel, stride, padding = layer
            built += [nn.Conv2d(channels, width, kernel, stride, padding), nn.ReLU()]
            channels = width
        return nn.Sequential(*built[: self.taps[-1] + 1])


def _vgg(*widths: int) -> tuple[Layer, ...]:
    """3 x 3 convolutions of these widths; 0 is a pooling."""
    return tuple((width, 3, 1, 1) if width else 2 for width in widths)


ALEXNET = Backbone(
    "alex",
    "alexnet-owt-7be5be79.pth",
    ((64, 11, 4, 2), 3, (192, 5, 1, 2), 3, (384, 3, 1, 1), (256, 3, 1, 1), (256, 3, 1, 1)),
    (1, 4, 7, 9, 11),
)
VGG16 = Backbone(
    "vgg",
    "vgg16-397923af.pth",
    _vgg(64, 64, 0, 128, 128, 0, 256, 256, 256, 0, 512, 512, 512, 0, 512, 512, 512),
    (3, 8, 15, 22, 29),
)


def heads_file(backbone: Backbone) -> Path:
    """The linear heads in torchmetrics' wheel."""
    found = find_spec("torchmetrics")
    assert found is not None and found.origin is not None
    return Path(found.origin).parent / "functional" / "image" / "lpips_models" / f"{backbone.name}.pth"


def backbone_file(backbone: Backbone, given: Path | None) -> Path:
    """The file named in the scorers' YAML, or where torchvision keeps its downloads."""
    remedy = f"name a local {backbone.file} (torchvision's) as lpips.{backbone.name} in the scorers' YAML file"
    path = given or Path(torch.hub.get_dir()) / "checkpoints" / backbone.file
    if given is None and not path.exists():
        raise NotMeasured(expected=f"the weights of LPIPS ({backbone.name})", got=f"no {backbone.file}", remedy=remedy)
    return existing(path, backbone.file)


class Lpips(nn.Module):
    """A ``PairDistance``: 0 for identical images, larger is farther apart.

    The other images of a pair, the full run's, come again with every method and are processed once.
    """

    shift: torch.Tensor
    scale: torch.Tensor

    def __init__(self, backbone: Backbone, weights: Path | None, device: str = "cpu") -> None:
        super().__init__()
        self.backbone, self.device = backbone, device
        self.stack = backbone.build()
        self.register_buffer("shift", torch.tensor(SHIFT).view(3, 1, 1))
        self.register_buffer("scale", torch.tensor(SCALE).view(3, 1, 1))
        with weights_of(f"LPIPS ({backbone.name})", f"give torchvision's {backbone.file} as lpips.{backbone.name}"):
            stored = load_tensors(backbone_file(backbone, weights), map_location="cpu")
            wanted = {f"features.{name}": name for name in self.stack.state_dict()}
            self.stack.load_state_dict({short: stored[name] for name, short in wanted.items()})
            heads = load_tensors(heads_file(backbone), map_location="cpu")
            self.heads = nn.ParameterList([heads[f"lin{i}.model.1.weight"] for i in range(len(backbone.taps))])
        frozen(self, device)
        self._digest = digest(self)
        self.remembered = RememberedImages(self.rows, MOST_BYTES)

    @torch.no_grad()
    def __call__(self, images: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
        """float32 [B] for two batches uint8 [B, 3, H, W]."""
        size = max(1, images_at_once(checked(images)) // 2)
        pairs = zip(torch.split(images, size), torch.split(others, size), strict=True)
        return torch.cat([self.distance(left, right) for left, right in pairs])

    def distance(self, images: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
        """Equation 1: over layers, the mean over positions of the weighted squared difference of unit-length features."""
        theirs = self.remembered(others)
        found = torch.zeros(len(images), device=theirs.device)
        differ = (images != others).flatten(1).any(dim=1).to(theirs.device)  # for identical images it is 0, with no rounding
        if differ.any():
            ours = self.remembered(images[differ.to(images.device)], keep=False)
            found[differ] = (ours - theirs[differ]).square().sum(dim=1)
        return found

    def rows(self, images: torch.Tensor) -> torch.Tensor:
        """float32 [B, d]: the squared Euclidean distance of two rows is LPIPS, because no weight of the heads is negative."""
        x = images.to(self.device).float() / 127.5 - 1
        x = (x - self.shift) / self.scale
        found = []
        for number, layer in enumerate(self.stack):
            x = layer(x)
            if number in self.backbone.taps:
                unit = x / (x.square().sum(dim=1, keepdim=True) + EPSILON).sqrt()
                weight = self.heads[self.backbone.taps.index(number)] / (x.shape[2] * x.shape[3])
                found.append((unit * weight.sqrt()).flatten(1))
        return torch.cat(found, dim=1)

    def fingerprint(self) -> Mapping[str, str]:
        """Backbone with weights and heads, preprocessing, and the package that carries the heads."""
        known = {"network": f"lpips-{self.backbone.name}-{self._digest}", "preprocessing": PREPROCESSING}
        return {**known, "torchmetrics": version("torchmetrics")}
