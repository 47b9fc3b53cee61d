"""BRISQUE as a scorer command: lower is better, about 0 to 100, and outside it for images unlike any photograph."""

from pathlib import Path

import brisque
import numpy as np
from brisque import BRISQUE
from ilf_bench_scorer import digest, serve
from PIL import Image

model = BRISQUE(url=False)
models = Path(brisque.__file__).parent / "models"


def score(images, prompts):
    """One number for each path."""
    return [float(model.score(np.asarray(Image.open(path).convert("RGB")))) for path in images]


serve(
    score,
    name="brisque",
    title="BRISQUE",
    direction="lower",
    weights=digest(*(str(models / name) for name in ("svm.txt", "normalize.pickle"))),
    packages=("brisque", "numpy", "opencv-python-headless", "libsvm-official"),
    preprocessing="uint8 RGB as the package reads it, no resize",
)
