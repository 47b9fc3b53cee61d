"""How a scorer command is named in a scorers' file."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class CommandSpec(BaseModel):
    """``command``: the program and its arguments, run without a shell. It has ``start_timeout_s`` seconds to load and say its
    handshake, and ``timeout_s`` for each batch, from its request to its answer.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    command: tuple[str, ...] = Field(min_length=1)
    start_timeout_s: float = Field(900, gt=0, allow_inf_nan=False)
    timeout_s: float = Field(300, gt=0, allow_inf_nan=False)
