"""Several processes of one training (``accelerate launch``): each on its own device, and work that they share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import timedelta
from glob import escape
from pathlib import Path
from typing import Any

from accelerate import PartialState

from harness.errors import UsageError
from harness.execution.progress import tracked
from harness.training.states import REMEDY, kept

PATIENCE = timedelta(hours=12)  # for which one process waits for the others; NCCL gives up after 10 minutes


def own_device(device: str) -> str:
    """The device of this process, where the spec names ``device``. Call it before anything is loaded.

    Raises :class:`UsageError` where several processes are told to share one GPU by its number.
    """
    state = PartialState(timeout=PATIENCE)
    if state.num_processes == 1 or device == "cpu":
        return device
    if device not in ("auto", state.device.type):
        raise UsageError(
            expected="a device for each of several processes",
            got=f"--device {device}",
            remedy="leave --device out, or --device cuda",
        )
    return str(state.device)


def kept_together(
    path: Path,
    key: str,
    pieces: Sequence[str],
    make: Callable[[int], dict[str, Any]],
    join: Callable[[Sequence[dict[str, Any]]], dict[str, Any]],
    remedy: str = REMEDY,
    stage: str = "",
) -> dict[str, Any]:
    """Made once and kept in ``path``, as by :func:`kept`; every process makes its share of the ``pieces``, which are then joined.

    The pieces lie beside ``path``, each under its name, until they have been joined, so that a training that was killed continues
    after the last one: the name says what is in it, so that one that was begun with other pieces takes none of them for its own.
    What is made does not depend on how many processes make it. With the name of a ``stage`` its progress is shown.
    """
    state = PartialState()
    if not path.exists():
        parts = [path.with_suffix(f".part-{name}{path.suffix}") for name in pieces]
        mine = range(state.process_index, len(pieces), state.num_processes)
        for piece in tracked(mine, stage) if stage else mine:
            kept(parts[piece], key, lambda piece=piece: make(piece), remedy)  # type: ignore[misc]
        state.wait_for_everyone()
        if state.is_main_process:
            found = [kept(part, key, lambda piece=piece: make(piece), remedy) for piece, part in enumerate(parts)]  # type: ignore[misc]
            made = kept(path, key, lambda: join(found), remedy)
            for part in path.parent.glob(f"{escape(path.stem)}.part-*"):
                part.unlink()
        state.wait_for_everyone()
        if state.is_main_process:
            return made
    return kept(path, key, lambda: join([make(piece) for piece in range(len(pieces))]), remedy)
