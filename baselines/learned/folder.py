"""Where the files of a learned or searched method lie."""

from __future__ import annotations

from pathlib import Path

from harness.errors import NotMeasured, UsageError


def learned_folder(named: str | None, pipeline_folder: Path | None, method: str, option: str, file: str, what: str) -> Path:
    """The ``named`` folder, or the one of the method's name inside the pipeline's; ``file`` is in it.

    ``option`` is what names a folder, and ``what`` it holds, for messages. Raises :class:`UsageError` where a named one lacks
    the file, and :class:`NotMeasured` where none is named and the pipeline brings none.
    """
    if named:
        folder = Path(named)
    elif pipeline_folder is not None:
        folder = pipeline_folder / method
    else:
        raise NotMeasured(expected=what, got="random weights, which have none", remedy=f"{method}:{option}=FOLDER")
    if not (folder / file).exists():
        kind = UsageError if named else NotMeasured
        raise kind(expected=f"{what} in {folder}", got=f"no {file}", remedy=f"python -m zoo.recipes.build {method}-MODEL")
    return folder
