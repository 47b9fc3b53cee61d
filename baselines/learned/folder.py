"""Where the files of a learned or searched method lie, and for which transformer they were made."""

from __future__ import annotations

from pathlib import Path

from harness.cost.plan import Backbone
from harness.errors import ArtifactError, NotMeasured, UsageError
from harness.storage.hashing import contents_digest
from harness.storage.records import read_json, write_json

MODEL = "trained-on.json"


def learned_folder(named: str | None, pipeline_folder: Path | None, method: str, option: str, file: str, what: str) -> Path:
    """The ``named`` folder, or the one of the method's name inside the pipeline's; ``file`` is in it.

    ``option`` is what names a folder, and ``what`` it holds, for messages. Raises :class:`UsageError` where a named one lacks
    the file, and :class:`NotMeasured` where none is named and the pipeline brings none.
    """
    train = f"train one: ilf-bench train PRESET --method {method}; and name it: {method}:{option}=FOLDER"
    if named:
        folder = Path(named)
    elif pipeline_folder is not None:
        folder = pipeline_folder / method
    else:
        raise NotMeasured(expected=what, got="random weights, which have none", remedy=train)
    if not (folder / file).exists():
        kind = UsageError if named else NotMeasured
        raise kind(expected=f"{what} in {folder}", got=f"no {file}", remedy=train)
    return folder


def note_transformer(folder: Path, backbone: Backbone) -> None:
    """Write into ``folder`` for which transformer its files were made; nothing where that one has no folder."""
    if digest := _transformer(backbone):
        write_json(folder / MODEL, {"transformer": digest})


def check_transformer(folder: Path, backbone: Backbone) -> None:
    """Raise :class:`ArtifactError` where the files in ``folder`` were made for other weights, as far as is known of both."""
    wanted = _transformer(backbone) if (folder / MODEL).exists() else ""
    if wanted and read_json(folder / MODEL).get("transformer") != wanted:
        raise ArtifactError(
            expected=f"a folder that was trained on the transformer of {backbone.folder}",
            got=f"{folder}, which was trained on another",
            remedy=f"train one on this model, or remove {folder / MODEL} to try it on other weights",
        )


def _transformer(backbone: Backbone) -> str:
    """The digest of its weights and settings; empty where it has no folder, or a method has put others in their place."""
    if backbone.folder is None or backbone.weights:
        return ""
    return contents_digest([backbone.own_transformer or backbone.folder / "transformer"])
