"""The forms of a second pass that the study of the loop compares, and the models that they are trained on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.paths import ROOT
from ilf.settings import IlfSettings
from zoo.recipes.ilf import DIT, FLOW, PIXART, IlfRecipe

ZOO = ROOT / "zoo"
TRAJECTORIES = 2048
TUNED: dict[str, Any] = {"inner_pass": False, "start": "ilf-adapter", "end_to_end_lr": 5e-4}
UNIPC: dict[str, Any] = {"initial_solver": "unipc", "power": 1.0}


@dataclass(frozen=True)
class Form:
    """A form of the module at ``steps`` denoising steps."""

    what: str
    settings: IlfSettings
    steps: int


class Forms:
    """Makes forms for a transformer of ``blocks`` blocks, whose loops end at the last one."""

    def __init__(self, blocks: int) -> None:
        self.blocks = blocks

    def form(self, what: str, steps: int, length: int = 1, **changes: Any) -> Form:
        """A form whose loop is the last ``length`` blocks."""
        loop = (self.blocks - length + 1, self.blocks)
        content = {"loop": loop, "grids": (steps,), "steps": steps, "trajectories": TRAJECTORIES, "optimiser_steps": 0}
        return Form(what, IlfSettings.of(content | {"end_to_end_steps": 1, "end_to_end_lr": 1e-3} | changes), steps)

    def partial(self, what: str, steps: int, length: int, branches: str = "both", **changes: Any) -> Form:
        """A form whose second steps run the last ``length`` blocks only."""
        return self.form(what, steps, length, **{"partial": True, "branches": branches, "feedback": "odd"} | changes)

    def common(self) -> dict[str, Form]:
        """Those that cost the same at every depth."""
        return {
            "solver": self.form("no module: the learned solver by itself", 7, feedback="none"),
            "adapter": self.form("no second pass: feedback is added to what leaves the last block", 7, inner_pass=False),
            "loop-1": self.form("second pass of the last block", 7),
            "loop-4": self.form("second pass of the last four blocks", 6, 4),
            "adapter-carried": self.carried("no second pass; every second step carries guidance over", "odd", inner_pass=False),
            "adapter-carried-6": self.carried("the same at 6 steps", "odd", 6, inner_pass=False),
            "adapter-carried-7": self.carried("the same at 7 steps, the last on one branch, too", "1.3.5.6", 7, inner_pass=False),
            "adapter-carried-8": self.carried("the same at 8 steps", "odd", 8, inner_pass=False),
            "adapter-carried-late": self.carried("the same on the last four steps", "last-4", inner_pass=False),
            "solver-carried": self.carried("no module; every second step carries guidance over", "odd", feedback="none"),
            "loop-1-carried": self.carried("second pass of the last block; every second step carries guidance over", "odd"),
        }

    def carried(self, what: str, carried: str, steps: int = 9, **changes: Any) -> Form:
        """A form some of whose steps run the conditional branch alone, with the guidance of the step before."""
        return self.form(what, steps, guidance_carried=carried, **changes)


def shallow(forms: Forms) -> dict[str, Form]:
    """At 12 blocks: 7 plain steps are 168 block evaluations, and so is every row within 9%; rows of 9 steps
    are for twice the speed of 20."""
    second = "every second step runs the last"
    return forms.common() | {
        "partial-4": forms.partial(f"{second} four blocks only, both branches", 10, 4),
        "partial-4-guided": forms.partial("the same on the conditional branch, guidance carried over", 12, 4, "conditional"),
        "partial-1": forms.partial(f"{second} block only, both branches", 12, 1),
        "partial-6": forms.partial(f"{second} six blocks only, both branches", 9, 6),
        "partial-late": forms.partial(f"four whole steps, then {second} four blocks only", 8, 4, feedback="5.7"),
        "adapter-9": forms.form("no second pass, at 9 steps", 9, inner_pass=False),
        "solver-9": forms.form("no module, at 9 steps", 9, feedback="none"),
    }


def straight(forms: Forms) -> dict[str, Form]:
    """For flow matching: those that start from the solver and the spacing which are best there without training."""
    return shallow(forms) | {
        "adapter-unipc": forms.form("the adapter, from UniPC on the checkpoint's own spacing", 7, inner_pass=False, **UNIPC),
        "solver-unipc": forms.form("no module: the learned solver, from UniPC on the same spacing", 7, feedback="none", **UNIPC),
    }


def tuned(forms: Forms) -> dict[str, Form]:
    """Those that start from a bundled adapter, where the model has one."""
    return {
        "tuned-7": forms.carried("the bundled adapter, trained on with carried guidance", "1.3.5.6", 7, **TUNED),
        "tuned-8": forms.carried("the same at 8 steps", "odd", 8, **TUNED),
    }


def deep(forms: Forms) -> dict[str, Form]:
    """At 28 blocks: 7 plain steps are 392 block evaluations, and so is every row within 7%."""
    second = "every second step runs the last"
    return forms.common() | {
        "loop-12": forms.form("second pass of the last twelve blocks", 6, 12),
        "loop-12-middle": forms.form("second pass of blocks 9 to 20, which is where the paper loops", 6, 12, loop=(9, 20)),
        "partial-1": forms.partial(f"{second} block only, both branches", 13, 1),
        "partial-4": forms.partial(f"{second} four blocks only, both branches", 12, 4),
        "partial-12": forms.partial(f"{second} twelve blocks only, both branches", 10, 12),
    }


@dataclass(frozen=True)
class Model:
    """A frozen backbone in ``folder``, what its modules are trained on, and the file of captions that they are judged on."""

    recipe: IlfRecipe
    folder: Path
    held_out: str
    forms: dict[str, Form]


MODELS = {
    "class": Model(DIT, ZOO / DIT.model, "prompts-all.txt", shallow(Forms(12)) | tuned(Forms(12))),
    "text": Model(PIXART, ZOO / PIXART.model, "prompts-held-out.txt", shallow(Forms(12)) | tuned(Forms(12))),
    "flow": Model(FLOW, ZOO / FLOW.model, "prompts-held-out.txt", straight(Forms(12))),
    "sibling": Model(FLOW, Path("runs/tiny-sd3-grey"), "prompts-held-out.txt", {}),
    "deep": Model(DIT, Path("runs/tiny-dit-28"), "prompts-all.txt", deep(Forms(28))),
}
