"""Which method works on which family: every pair tried at tiny size. ``python -m studies.families`` writes docs/families.md,
and with names of cases, or beginnings of methods, tries these alone.

Each family is built with random weights, saved in diffusers' own format and read back. A pair works where the method keeps the
whole contract of :mod:`ilf_bench.testing` on it; where it does not apply it says so, and why is what the document prints.
"""

from __future__ import annotations

import os
import re
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from baselines.learned.search import SearchSettings, build_schedules
from baselines.learned.train import Train
from baselines.learned.train_bespoke import BespokeSettings, build_solvers
from baselines.learned.train_deediff import ExitSettings, build_heads
from baselines.learned.train_routers import RouterSettings, build_router_files
from harness.config.methods import parse_method
from harness.config.spec import ExperimentSpec, build_spec
from harness.contracts import Method
from harness.errors import NotMeasured
from harness.models.architecture import Architecture
from harness.models.families.base import Family
from harness.models.loading import load_pipeline, quiet_libraries
from harness.models.random_weights import architectures, describe, find_architecture
from harness.paths import ROOT
from harness.sampling import compiling
from harness.sampling.patching import patched
from harness.sampling.pipeline import Pipeline
from harness.training.fit import TrainSettings
from ilf.settings import IlfSettings
from ilf.train import build_module
from ilf_bench.registry import BUILT_IN
from ilf_bench.testing import method_clauses
from zoo.recipes.build import save_labels

ARCHITECTURES = {**architectures("class"), **architectures("text")}
WORDS = ("red cat", "blue dog", "red dog")
DOCUMENT = ROOT / "docs" / "families.md"


@dataclass(frozen=True)
class Case:
    """One way to run one family: ``settings`` of the :class:`Pipeline`, and of the ``transformer`` beside the tiny ones."""

    architecture: str
    settings: dict[str, Any] = field(default_factory=dict)
    transformer: dict[str, Any] = field(default_factory=dict)

    @property
    def family(self) -> Family:
        """The family."""
        return describe(ARCHITECTURES[self.architecture])[0]

    @property
    def tiny(self) -> Architecture:
        """Its architecture, small."""
        found = find_architecture(f"random:{self.architecture}:tiny", self.family.task)
        return found.having("transformer", **self.transformer)

    def save(self, folder: Path) -> Path:
        """The pipeline in diffusers' own format, and a transformer of fewer blocks beside it."""
        architecture = self.tiny
        architecture.build().save_pretrained(folder)
        if self.family.task == "class":
            save_labels(folder, list(WORDS))
        small = architecture.cut(len(architecture.depth)).build(seed=4).transformer
        small.save_pretrained(folder.with_name(folder.name + "-small") / "transformer")
        return folder

    def open(self, folder: Path, **settings: Any) -> Pipeline:
        """The pipeline, read from a folder that :meth:`save` wrote as a run reads it."""
        return load_pipeline(self.spec(folder, **settings))

    def spec(self, folder: Path, **settings: Any) -> ExperimentSpec:
        """What a run of that folder would be told."""
        side = {"height": self.tiny.asked, "width": self.tiny.asked}
        fixed = {"name": folder.name, "task": self.family.task, "pipeline": str(folder), "prompts": "x", "methods": ["full"]}
        told = {"metrics": [], "steps": 4, "guidance": 2.0, "solver": "checkpoint", "precision": "fp32", "device": "cpu"}
        return build_spec(fixed | told | side | self.settings | settings, "the study of families")


CASES = {
    "DiT": Case("dit-xl-2-256", {"solver": "dpm++"}),
    "PixArt-alpha": Case("pixart-alpha-512", {"solver": "dpm++"}),
    "PixArt-Sigma": Case("pixart-sigma-512", {"solver": "dpm++"}),
    "SD3": Case("sd3-medium"),
    "SD3.5": Case("sd3.5-medium", transformer={"dual_attention_layers": (0, 1, 2)}),
    "FLUX.1-dev": Case("flux.1-dev", {"guidance": 3.5}),
    "FLUX.1-dev, true guidance": Case("flux.1-dev", {"guidance": 3.5, "true_guidance": 2.0}),
    "FLUX.1-schnell": Case("flux.1-schnell", {"guidance": 0.0}),
    "Sana": Case("sana-1.6b-1024"),
    "FLUX.2-dev": Case("flux.2-dev", {"guidance": 4.0}),
    "FLUX.2-klein": Case("flux.2-klein-4b", {"guidance": 1.0}),
    "FLUX.2-klein-base": Case("flux.2-klein-base-9b", transformer={"num_layers": 1, "num_single_layers": 5}),
    "Qwen-Image": Case("qwen-image"),
    "Chroma": Case("chroma1-hd"),
    "Z-Image": Case("z-image"),
    "Z-Image-Turbo": Case("z-image-turbo", {"guidance": 0.0}),
}
STEPS = ("steps:3", "spacing:1.5")
SOLVERS = tuple(f"solver:{name}" for name in ("euler", "heun", "ddim", "dpm++", "unipc", "deis", "ghvb", "bdia", "evodiff"))
CACHES = (
    "deepcache:interval=3:first=2:last=4",
    "delta-dit:interval=2",
    "encoder:keys=3:blocks=1",
    "step-rehash:threshold=0.2:first=3",
    "fora:3",
    "taylorseer:interval=2:order=1:warmup=1",
    "smoothcache:1.5",
    "pab:attention=3:cross=2:low=0:high=1000",
    "first-block:9",
    "teacache:3.5",
    "magcache:0.5:retention=0.3",
    "budcache:0.5",
)
OTHERS = ("t-gate:0.3", "guidance-reuse", "t-stitch:fraction=0.5", "solver:dpm+++bottleneck:first=0.2")
ILF = (
    "ilf:checkpoint={ilf}",
    "ilf-untrained:steps=3:feedback=first-2",
    "ilf-untrained:steps=3:feedback=all:form=ours",
    "ilf:checkpoint={ilf}+fora:2",
)
THIRD_PARTY = (
    "diffusers-cache:first-block:9",
    "diffusers-cache:taylorseer:interval=2:warmup=1",
    "diffusers-cache:taylorseer:interval=2:warmup=1:modules=parts",
    "diffusers-cache:taylorseer:interval=2:warmup=1:modules=lite",
    "diffusers-cache:pab:interval=2:low=0:high=1000",
    "diffusers-cache:magcache:0.5:retention=0.3",
    "diffusers-cache:fastercache",
    "cache-dit:9:front=1:warmup=1",
    "cache-dit:9:front=1:back=1:warmup=2:taylorseer=1",
)
MOMENT = TrainSettings(steps=8, lr=3.0, warmup=1, ema=0.1, checkpoint_every=10)
BRIEF = replace(MOMENT, steps=3, lr=1e-3)
MOMENTS: dict[str, Train] = {  # trainings of random weights: just enough that what is learned is not what it began with
    "bespoke": partial(build_solvers, BespokeSettings(BRIEF, BRIEF, grids=(3,), runs=2, batch=2)),
    "learning-to-cache": partial(build_router_files, "learning-to-cache", RouterSettings(MOMENT, 1.0, 2, trajectories=3)),
    "harmonica": partial(build_router_files, "harmonica", RouterSettings(MOMENT, 1.0, 2, trajectories=3)),
    "ecad": partial(build_schedules, SearchSettings(population=4, generations=1, images=2)),
    "deediff": partial(build_heads, ExitSettings(BRIEF, batch=2, trajectories=3)),
}
LEARNED = ("bespoke:3", "learning-to-cache:0.5", "harmonica:threshold=0.6", "ecad:0.7", "deediff:0.5")
SYSTEMS = ("compile",)  # traced, with eager kernels: what inductor makes of it is tests/families/test_systems.py
METHODS = (*STEPS, *SOLVERS, *CACHES, *OTHERS, *ILF, *THIRD_PARTY)
EVERY_METHOD = (*METHODS, *LEARNED, *SYSTEMS)
FAST = ("solver:dpm++", "fora:3", "deepcache:interval=3:first=2:last=4", "first-block:9", "ilf:checkpoint={ilf}")

MISSING = (
    ("HunyuanImage 2.1", "two lists of blocks as FLUX.1 has; a second text encoder for glyphs, and a guider object of diffusers"),
    (
        "Lumina 2",
        "refiners as in Z-Image and one list of blocks on joined streams; the image begins behind each caption's own length, so"
        " its place in the stream differs from row to row",
    ),
    (
        "CogView4",
        "two streams as SD3 and a second call; its transformer is told evenly spaced times beside shifted sigmas, where a time"
        " stands for its sigma in every other family, and captions are padded to the longest of a batch without a mask, so that"
        " an image depends on its neighbours",
    ),
    ("Wan 2.x", "video: latents of five dimensions, two transformers that take turns, and metrics by frame"),
    ("LTX", "video: packed latents of three dimensions, and metrics by frame"),
)
HEAD = (
    "# Families of models, and which method works on which",
    "",
    "Generated by `python -m studies.families`; `make test-families` holds every cell of the table.",
    "",
    "Each column is a pipeline of diffusers with random weights and tiny parts, saved in its true format and read back. *works*:",
    "the predicted cost is the counted one, the pipeline is restored bit for bit, no state is left from call to call, and an",
    "image depends neither on its neighbours nor on its place. *not measured*: the method says why it does not apply, and a run",
    "prints it. Methods that decide for a whole batch are tried on one image at a time.",
    "",
)
TAIL = (
    "The learned and searched methods (`bespoke` to `deediff`) were trained on each pipeline for a moment, so that they keep",
    "the contract with coefficients of their own. `bespoke` learns from decoded images where latents can be decoded plainly,",
    "and from latents alone where they are packed; without guidance terms where the pipeline rescales the guided prediction.",
    "",
    "`compile`: every block of every family is one graph without a break (`fullgraph`), traced by torch's dynamo and run by",
    "eager kernels, alone and below a cache and ILF; with inductor's kernels it is `python -m pytest -m slow",
    "tests/families/test_systems.py`. `cuda-graphs` give the eager images on a simulated device",
    "(tests/simulated_cuda/test_families.py, in `make test-simulated`). Both on a GPU: `python -m pytest -m gpu",
    "tests/families/test_systems.py`. `int8` and `fp8`: `make test-low-bit`. INT8 inputs (not weights alone) make an image",
    "differ between batch sizes, by up to 1.1 grey levels on average at tiny size, which is as much as INT8 itself costs:",
    "float kernels differ in the last bit, and a value at a rounding boundary takes the next INT8 step. Among as many",
    "neighbours it is the same, whatever they are. ILF trains on every family",
    "(tests/families/test_training.py).",
    "",
    "`distilled:` takes a LoRA and a student of its teacher's settings (SD3, FLUX.1-dev and Qwen-Image in",
    "tests/families/test_distilled.py). FLUX.1-schnell in the place of FLUX.1-dev is not measured: it is not told its guidance,",
    "so it has other weights, and runs as a pipeline of its own.",
    "",
    "Multiply-accumulates, block evaluations in units of a mean block, and memory are predicted for captions of full length.",
    "Qwen-Image pads captions to the longest of a batch and Z-Image to a multiple of 32 tokens, so shorter ones take less than",
    "predicted. Z-Image's `cfg_truncation`, which ends guidance at a time, is off here as it is in diffusers' defaults:",
    "guidance is on at all steps or at none.",
    "",
    "## A family that is missing",
    "",
    "[Add it](add-a-family.md): one file. What others would take:",
    "",
    "| family | what it would take |",
    "|---|---|",
    *(f"| {name} | {work} |" for name, work in MISSING),
)


@dataclass(frozen=True)
class Opened:
    """A tiny pipeline of one case and a random feedback module for it."""

    pipeline: Pipeline
    module: Path

    def method(self, text: str) -> Method:
        """A method by its text; ``{ilf}`` stands for the module's folder. A learned one is trained for a moment first, into the
        pipeline's folder."""
        name, folder = text.partition(":")[0], self.pipeline.folder
        if name in MOMENTS and folder is not None and not (folder / name).is_dir():
            with tempfile.TemporaryDirectory() as work:
                MOMENTS[name](self.pipeline, WORDS, folder / name, Path(work) / "training.pt")
        return parse_method(text.format(ilf=self.module), BUILT_IN)


def opened(name: str, root: Path) -> Opened:
    """One case, saved under ``root`` and read back, with a module for blocks 2 to 5 whose scales matter."""
    pipeline = CASES[name].open(CASES[name].save(root / _plain(name)))
    return Opened(pipeline, save_random_module(pipeline, root / f"{_plain(name)}-ilf"))


def _plain(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9.]+", "-", name)


def save_random_module(pipeline: Pipeline, folder: Path) -> Path:
    """A random feedback module for as many of blocks 2 to 5 as are of one kind."""
    torch.manual_seed(3)
    family, config = pipeline.family, pipeline.described.transformer
    last = max(number for number in range(2, 6) if family.place(config, number)[0] == family.place(config, 2)[0])
    settings = IlfSettings(loop=(2, last), grids=(4,), steps=4, power=1.0, gating="fixed", guidance_distilled="none")
    module = build_module(pipeline, settings)
    module.scales.data.fill_(0.3)
    module.save_pretrained(folder)
    return folder


def why_not(one: Opened, text: str) -> str:
    """Empty where the method works; else why it is not measured. Raises :class:`AssertionError` where it breaks its contract."""
    try:
        with patched(compiling, "BACKEND", "eager"):
            clauses = method_clauses(one.pipeline, one.method(text))
    except NotMeasured as reason:
        return re.sub(r" in /[^;\s]+", " beside the pipeline", f"needs {reason.expected}; got {reason.got}")
    broken = [f"{clause.promise}: {clause.fault}" for clause in clauses if clause.fault]
    assert not broken, "; ".join(broken)
    return ""


def document(root: Path, wanted: Sequence[str] = ()) -> str:
    """The table as Markdown, with the reasons below it. ``wanted``: the cases, or beginnings of methods, that are tried; what the
    document says of others is kept."""
    reasons: dict[str, int] = {}
    known = recorded() if wanted else {}
    rows = {text: list[str]() for text in EVERY_METHOD}
    for name in CASES:
        one = opened(name, root)
        for text, row in rows.items():
            again = (text, name) not in known or name in wanted or text.startswith(tuple(wanted))
            why = why_not(one, text) if again else known[text, name]
            row.append(f"not measured ({reasons.setdefault(why, len(reasons) + 1)})" if why else "works")
    lines = [f"| `{text.replace('{ilf}', 'FOLDER')}` | {' | '.join(row)} |" for text, row in rows.items()]
    head = [f"| method | {' | '.join(CASES)} |", "|---" * (len(CASES) + 1) + "|"]
    notes = [f"{number}. {why}" for why, number in reasons.items()]
    return "\n".join([*HEAD, *head, *lines, "", "## Why not", "", *notes, "", *TAIL, ""])


def recorded() -> dict[tuple[str, str], str]:
    """The document's table: empty where the method works, else why not, by method and case."""
    text = DOCUMENT.read_text(encoding="utf-8")
    reasons = dict(re.findall(r"^(\d+)\. (.+)$", text, re.MULTILINE))
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("| ")]
    head, *body = rows
    found = {}
    for label, *cells in body:
        if label.startswith("`"):
            for name, cell in zip(head[1:], cells, strict=True):
                number = re.search(r"\((\d+)\)", cell)
                found[label.strip("`").replace("FOLDER", "{ilf}"), name] = reasons[number[1]] if number else ""
    return found


def main() -> None:
    """Write the document."""
    quiet_libraries()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["XDG_CACHE_HOME"] = folder  # calibrations of random weights are of no use to anybody
        DOCUMENT.write_text(document(Path(folder), sys.argv[1:]), encoding="utf-8")


if __name__ == "__main__":
    main()
