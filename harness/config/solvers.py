"""The names of the solvers: enough to check a preset. Their table, harness/sampling/solvers.py, needs diffusers."""

from __future__ import annotations

from harness.errors import UsageError, did_you_mean

OWN = "checkpoint"  # keep the scheduler that the checkpoint was saved with
SOLVER_NAMES = ("ddim", "dpm++", "dpm++1", "unipc", "deis", "ghvb", "bdia", "bdia-inv", "evodiff", "euler", "heun")
OWN_GRID = ("", OWN, "euler", "ddim")  # with flow matching these run on the very grid of the checkpoint's scheduler
TWICE = ("heun",)  # these call the model twice per step, but once in the last


def check_solver(name: str) -> str:
    """The name itself, or a :class:`UsageError` that lists the known ones.

    >>> check_solver("unipc")
    'unipc'
    """
    if name != OWN and name not in SOLVER_NAMES:
        known = (OWN, *SOLVER_NAMES)
        remedy = did_you_mean(name, known) or "choose one of these"
        raise UsageError(expected=f"a solver out of {', '.join(known)}", got=repr(name), remedy=remedy)
    return name


def model_calls(solver: str, steps: int) -> int:
    """How often a solver calls the model in ``steps`` steps."""
    return 2 * steps - 1 if solver in TWICE else steps


def solver_steps(solver: str, calls: int) -> int:
    """The steps in which a solver calls the model ``calls`` times."""
    return (calls + 1) // 2 if solver in TWICE else calls
