"""How much sharper or blurrier than the full run's an image is: a metric of one's own."""

import torch
import torch.nn.functional as F

from ilf_bench import BaseMetric


class SharpnessChange(BaseMetric):
    """|log2| of the ratio of Laplacian variances (Pech-Pacheco et al., 2000) to the full run's image; 0 for the same."""

    name, title, unit, direction, paired = "sharpness_change", "Sharpness change", "octaves", "lower", True

    def __init__(self, context):
        """``context`` has device, networks and reference; this metric needs none of them."""

    def details(self):
        """What fixes its numbers: scores that differ in any of it are never subtracted."""
        return {"definition": "|log2 (var laplacian 3x3 of luma + 1)|, Rec. 601, grey levels"}

    def measure(self, batch):
        """float32 [B, 1] for uint8 images [B, 3, H, W]; ``batch.full`` holds the full run's from the same noise."""
        change = (sharpness(batch.images) - sharpness(batch.full)).abs()
        return change[:, None].numpy()


def sharpness(images):
    """log2 of the variance of the Laplacian, float32 [B]."""
    luma = (images.float() * torch.tensor([0.299, 0.587, 0.114]).view(3, 1, 1)).sum(dim=1, keepdim=True)
    kernel = torch.tensor([[0.0, 1, 0], [1, -4, 1], [0, 1, 0]]).view(1, 1, 3, 3)
    return (F.conv2d(luma, kernel).var(dim=(1, 2, 3)) + 1).log2()


METRICS = {"sharpness_change": SharpnessChange}
