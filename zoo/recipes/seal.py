"""Write SHA256SUMS into each folder of a bundled model that holds weights, settings or a vocabulary.

``python -m zoo.recipes.seal``, after one was meant to change.
"""

from __future__ import annotations

from pathlib import Path

from harness.models.checksums import write_sums
from harness.models.reading import INDEX, check_index

ZOO = Path(__file__).resolve().parents[1]


def sealed_folders(zoo: Path = ZOO) -> list[Path]:
    """The folders of weights, and every other one of a pipeline: its index, its scheduler, its tokenizer."""
    indices = list(zoo.rglob(INDEX))
    parts = {
        index.parent / name
        for index in indices
        for name, pair in check_index(index.parent).items()
        if isinstance(pair, list) and all(pair)
    }
    return sorted({path.parent for path in zoo.rglob("*.safetensors")} | parts | {index.parent for index in indices})


def seal(zoo: Path = ZOO) -> list[Path]:
    """The folders that were sealed."""
    folders = sealed_folders(zoo)
    for folder in folders:
        write_sums(folder)
    return folders


if __name__ == "__main__":
    for sealed in seal():
        print(sealed)
