"""What decides a method's images and times, as digests by ingredient: where any has changed, the method is made again.

``code``: our sources, and those of a package that brings the method. ``plugin``: a user's file with what it imports from beside
it. ``packages``: torch and the libraries around it. ``settings``: the fields of the preset that sampling depends on, the prompts,
and the method's options. ``model``: every file of the pipeline's components. ``files``: what else the method reads.
``calibrations``: what was measured for it beforehand, which is not known before it has been attached once.
"""

from __future__ import annotations

import ast
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

from harness.config.description import Plugin, parts_of
from harness.config.spec import ExperimentSpec
from harness.contracts import Method, Reads
from harness.cost.plan import Plan
from harness.errors import HarnessError
from harness.execution.code import code_digest, deciding_imports, packages_text
from harness.results import MethodRecord
from harness.storage.hashing import contents_digest
from harness.training.calibration import calibrations_folder

Identity = Mapping[str, str]
NO_SETTINGS = {  # of a preset, what decides no image and no time of one method, or is an ingredient of its own
    "device",  # the machine's key has what it is
    "methods",
    "metrics",
    "name",
    "pipeline",  # its files or what it holds
    "prompts",  # their digest
    "reference",
    "reference_steps",
    "samples",
    "scorers",
    "timing",
    "title",
}
CODE, PLUGIN, PACKAGES, SETTINGS, MODEL, FILES, CALIBRATIONS = WORDS = (
    "code",
    "plugin",
    "packages",
    "settings",
    "model",
    "files",
    "calibrations",
)
SHARED = (CODE, PACKAGES, SETTINGS, MODEL)  # where one of these differs, a finished run stays and another is made beside it


def known_identity(
    record: MethodRecord, method: Method, spec: ExperimentSpec, prompts: Mapping[str, Any], plugins: Mapping[str, Plugin]
) -> dict[str, str]:
    """The ingredients that are known before a model is loaded. ``plugins``: where names come from that are not ours."""
    fields = {name: value for name, value in spec.identity().items() if name not in NO_SETTINGS}
    options = [[part.name, dict(part.options)] for part in record.parts]
    settings = [fields, prompts.get("digest"), record.spec, options]
    own = sorted({f"{part.plugin} {part.plugin_digest}" for part in record.parts if part.plugin_digest})
    modules: list[str] = []
    for part, kind in zip(record.parts, parts_of(method), strict=True):
        texts = plugins[part.name].sources.values() if part.name in plugins else ()
        modules += [name for text in texts for name in deciding_imports(text)] if texts else [type(kind).__module__]
    return {
        CODE: code_digest(modules),
        PLUGIN: ", ".join(own),
        PACKAGES: packages_text(),
        SETTINGS: hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16],
    }


def read_identity(method: Method, plan: Plan, plugins: Sequence[Plugin], model: str) -> dict[str, str]:
    """The ingredients that are files, where the pipeline is: ``model`` is its digest, and ``plan`` that of the plain run."""
    paths = [*files_of(method, plan), *(path for plugin in plugins for path in named_files(plugin))]
    measured = [path for path in paths if path.is_relative_to(calibrations_folder())]
    return {
        MODEL: model,
        FILES: contents_digest(path for path in paths if path not in measured),
        CALIBRATIONS: contents_digest(measured),
    }


def files_of(method: Method, plan: Plan) -> Iterator[Path]:
    """What the parts of a method read, and the files and folders that their options name."""
    folder = plan.backbone.folder
    for part in parts_of(method):
        try:
            yield from (path for path in (part.reads(plan) if isinstance(part, Reads) else ()) if path.exists())
            options: list[object] = [getattr(part, field.name) for field in fields(part)] if is_dataclass(part) else []
            yield from (path for value in options if (path := _named(value, folder)) is not None)
            plan = part.plan(plan)
        except HarnessError:
            return  # it cannot run here


def _named(value: object, folder: Path | None) -> Path | None:
    """The file or folder that an option names: as it stands, or inside the pipeline's folder."""
    if not isinstance(value, (str, Path)) or not str(value):
        return None
    inside = [] if folder is None or Path(value).is_absolute() else [folder / value]
    for path in (Path(value), *inside):
        if _is_file(path) or (path.is_dir() and (path in inside or len(Path(value).parts) > 1)):
            return path
    return None


def named_files(plugin: Plugin) -> Iterator[Path]:
    """The files that a plugin's text names, such as weights that it loads: beside it, or from where the run is started."""
    for source in plugin.sources.values():
        try:
            tree = ast.parse(source)
        except (SyntaxError, ValueError):
            continue
        texts = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)}
        for text in sorted(text for text in texts if "\n" not in text and len(text) < 4096):
            yield from (path for path in dict.fromkeys((plugin.folder / text, Path(text))) if _is_file(path))


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # a name that no file can have
        return False


def changes(before: Identity, now: Identity) -> list[str]:
    """The ingredients that differ. A calibration that either side does not know yet is no difference."""
    differing = [word for word in WORDS if before.get(word, "") != now.get(word, "")]
    unknown = not before.get(CALIBRATIONS) or not now.get(CALIBRATIONS)
    return [word for word in differing if not (word == CALIBRATIONS and unknown)]


def describe_changes(before: Identity, now: Identity) -> str:
    """What differs, for a reader: ``plugin half.py``, or ``torch 2.13.0 -> 2.14.0``."""
    return ", ".join(_described(word, before.get(word, ""), now.get(word, "")) for word in changes(before, now))


def _described(word: str, before: str, now: str) -> str:
    if word == PLUGIN:
        names = [entry.rpartition(" ")[0] for entry in (now or before).split(", ")]
        return f"plugin {' and '.join(names)}"
    if word == PACKAGES:
        old, new = (dict(entry.rpartition(" ")[::2] for entry in text.split(", ")) for text in (before, now))
        names = [name for name in dict.fromkeys([*old, *new]) if old.get(name) != new.get(name) and name]
        return ", ".join(f"{name} {old.get(name, 'none')} -> {new.get(name, 'none')}" for name in names)
    return {
        CODE: "the code of ilf-bench",
        SETTINGS: "the prompts or settings",
        MODEL: "a file of the pipeline",
        FILES: "a file that it reads",
        CALIBRATIONS: "its calibration",
    }[word]
