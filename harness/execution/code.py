"""The sources that decide what a method makes: ours by their content and not by a commit, others' along with what they import."""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import sys
from collections.abc import Iterable, Iterator
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from harness.storage.files import file_digest

DECIDING = (  # of our modules, those that load, sample, solve, count and time; the others cannot change an image or a time
    "harness.config.methods",
    "harness.cost",
    "harness.execution.sampler",
    "harness.models",
    "harness.sampling",
    "harness.timing",
    "harness.training",
    "baselines",
    "ilf",
)
OURS = {"harness", "baselines", "ilf", "metrics", "reports", "ilf_bench", "studies", "benchmarks", "website", "zoo"}
ROOTS = (
    "harness.config.methods",
    "harness.execution.sampler",
    "harness.models.loading",
    "harness.sampling.pipeline",
    "harness.timing.rounds",
)
PACKAGES = (
    "torch",
    "diffusers",
    "transformers",
    "tokenizers",
    "sentencepiece",
    "numpy",
    "safetensors",
    "torchao",
    "triton",
    "cache-dit",
)


def code_digest(modules: Iterable[str] = ()) -> str:
    """16 hexadecimal digits over all sources that sampling needs, and over those of ``modules`` with what they import."""
    total = hashlib.sha256()
    for name, file in sorted(sources((*ROOTS, *modules)).items()):
        total.update(f"{name}:{_content(file)}:".encode())
    return total.hexdigest()[:16]


def sources(modules: Iterable[str]) -> dict[str, Path]:
    """The files of ``modules`` and of all that they import and that decides: of ours and of their own packages, by module."""
    found: dict[str, Path] = {}
    waiting = list(dict.fromkeys(modules))
    tops = {name.partition(".")[0] for name in waiting} - OURS
    while waiting:
        name = waiting.pop()
        file = _file(name)
        if name in found or file is None:
            continue
        found[name] = file
        waiting += [other for other in imported(file, name) if other not in found and _decides(other, tops)]
    return found


def _decides(name: str, tops: set[str]) -> bool:
    ours = any(name == one or name.startswith(f"{one}.") for one in DECIDING)
    return ours or name.partition(".")[0] in tops


@cache
def imported(file: Path, name: str) -> tuple[str, ...]:
    """The modules that a source file imports, with their packages, whether they exist or not."""
    try:
        source = file.read_bytes()
    except OSError:
        return ()
    return _imported(source, name if file.name == "__init__.py" else name.rpartition(".")[0])


def deciding_imports(source: str) -> list[str]:
    """Those of our modules that a text imports and that decide what is sampled."""
    return [name for name in _imported(source.encode(), "") if _decides(name, set())]


def _imported(source: bytes, package: str) -> tuple[str, ...]:
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError):
        return ()
    return tuple(dict.fromkeys(part for node in ast.walk(tree) for part in _names(node, package)))


def _names(node: ast.AST, package: str) -> Iterator[str]:
    if isinstance(node, ast.Import):
        bases = [alias.name for alias in node.names]
    elif isinstance(node, ast.ImportFrom):
        above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
        base = ".".join([*above, *([node.module] if node.module else [])])
        bases = [base, *(f"{base}.{alias.name}" for alias in node.names)]
    else:
        return
    for base in bases:
        parts = base.split(".")
        yield from (".".join(parts[:n]) for n in range(1, len(parts) + 1))


@cache
def _file(name: str) -> Path | None:
    """The source file of a module; None where it is none, or has no source."""
    module = sys.modules.get(name)
    origin = getattr(module, "__file__", None)
    if module is None:
        try:
            spec = importlib.util.find_spec(name)
        except (ImportError, ValueError, AttributeError):
            return None
        origin = spec.origin if spec is not None else None
    path = Path(origin) if origin else None
    return path if path is not None and path.suffix == ".py" and path.is_file() else None


@cache
def _content(file: Path) -> str:
    return file_digest(file)


@cache
def packages_text() -> str:
    """The packages whose code takes part, with their versions: ``torch 2.13.0+cpu, ...``; missing ones are left out."""
    found = []
    for package in PACKAGES:
        try:
            found.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            continue
    return ", ".join(found)
