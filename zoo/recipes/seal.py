"""Write SHA256SUMS into each folder of bundled weights: ``python -m zoo.recipes.seal``, after one was meant to change."""

from __future__ import annotations

from pathlib import Path

from harness.models.checksums import write_sums

ZOO = Path(__file__).resolve().parents[1]


def seal(zoo: Path = ZOO) -> list[Path]:
    """The folders that were sealed."""
    folders = sorted({path.parent for path in zoo.rglob("*.safetensors")})
    for folder in folders:
        write_sums(folder)
    return folders


if __name__ == "__main__":
    for sealed in seal():
        print(sealed)
