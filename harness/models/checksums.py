"""Digests beside weights: a folder's SHA256SUMS, in the format of ``sha256sum``, checked whenever the folder is loaded."""

from __future__ import annotations

from pathlib import Path

from harness.errors import ArtifactError
from harness.storage.files import file_digest, read_small, write_bytes
from harness.storage.locations import inside

SUMS = "SHA256SUMS"
SUMS_BYTES = 2**20
WEIGHTS = (".safetensors", ".bin")
SETTINGS = {  # what else decides what a component does
    *("config.json", "scheduler_config.json", "model_index.json", "tokenizer.json", "tokenizer_config.json", "spiece.model"),
    *("vocab.json", "merges.txt", "added_tokens.json", "special_tokens_map.json"),
}


def write_sums(folder: Path) -> None:
    """Seal weights, settings and vocabularies that lie in ``folder`` itself, as ``sha256sum -c SHA256SUMS`` reads it."""
    files = sorted(path for path in folder.iterdir() if path.suffix in WEIGHTS or path.name in SETTINGS)
    write_bytes(folder / SUMS, "".join(f"{file_digest(path)}  {path.name}\n" for path in files).encode())


def read_sums(path: Path) -> dict[str, str]:
    """Digests by file name. Raises :class:`ArtifactError` on a file that cannot be read."""
    try:
        lines = [line.partition("  ") for line in read_small(path, SUMS_BYTES).decode("utf-8", "replace").splitlines()]
    except OSError as error:
        raise ArtifactError(expected=f"digests in {path}", got=str(error), remedy="restore that file") from error
    return {name: digest for digest, _, name in lines}


def check_sums(folder: Path) -> None:
    """Raise :class:`ArtifactError` where a sealed file is missing or altered, or weights are not sealed.

    A folder without SHA256SUMS is not checked.
    """
    sums = folder / SUMS
    if not sums.exists():
        return
    lines = read_sums(sums)
    if unsealed := [path.name for path in sorted(folder.iterdir()) if path.suffix in WEIGHTS and path.name not in lines]:
        raise ArtifactError(
            expected=f"a digest of {unsealed[0]} in {sums}", got="none", remedy=f"restore the folder, or write its {SUMS} again"
        )
    for name, expected in lines.items():
        path = inside(folder, name)
        found = file_digest(path) if path.is_file() else "no such file"
        if found != expected:
            raise ArtifactError(
                expected=f"{path} as {SUMS} beside it says",
                got=found[:16],
                remedy=f"restore the folder; if the change was intended, write its {SUMS} again",
            )
