"""The user's own files of methods and metrics: each is a module of its own, whatever its name and whatever lies beside it."""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from harness.errors import UsageError

SIGNS = set(":+,=/ \t\n")  # they join names and options in the text of a method
MEMBERS = ("label", "plan", "attach")
GUIDE = "see docs/add-a-method.md"
_LOADED: dict[str, LoadedPlugin] = {}


@dataclass(frozen=True)
class LoadedPlugin:
    """A file that was run as Python. ``files``: it, and those from beside it that it imports; ``digest``: SHA-256 of them all.

    ``tables``: its methods and metrics by name.
    """

    path: Path
    module: ModuleType
    files: tuple[Path, ...]
    digest: str
    tables: Mapping[str, Mapping[str, Callable[..., Any]]]

    @property
    def sources(self) -> dict[str, str]:
        """The texts of the files by their names beside one another; bytes that are no UTF-8 as escapes."""
        folder = self.path.parent
        return {file.relative_to(folder).as_posix(): file.read_bytes().decode("utf-8", "backslashreplace") for file in self.files}


def load_plugin(file: Path) -> LoadedPlugin:
    """Run a file as Python: only the user names one, on the command line. Raises :class:`UsageError` on whatever is wrong.

    The module has a name of its own in ``sys.modules``, where dataclasses and pickle look for it; its folder is searched after
    all others, so that the file can import what lies beside it, and nothing of ours is replaced by that.
    """
    if not file.is_file() or file.suffix != ".py":
        raise UsageError(expected="a Python file", got=str(file), remedy=GUIDE)
    path = file.resolve()
    if str(path.parent) not in sys.path:
        sys.path.append(str(path.parent))
    files = tuple(sorted({path, *imported_beside(path)}))
    digest = digest_of(files, path.parent)
    name = f"ilf_bench_plugin_{hashlib.sha256(f'{path} {digest}'.encode()).hexdigest()[:16]}"
    if name not in _LOADED:
        texts = {str(each) for each in files}
        for old in [key for key, module in sys.modules.items() if getattr(module, "__file__", None) in texts]:
            del sys.modules[old]  # as it was before it was edited
        module = _run(path, name)
        tables = {"methods": _table(module, "METHODS", file), "metrics": _table(module, "METRICS", file)}
        if not any(tables.values()):
            raise UsageError(expected=f"METHODS or METRICS = {{name: class}} in {file}", got="no such table", remedy=GUIDE)
        for method, kind in tables["methods"].items():
            check_method(method, kind, str(file))
        _LOADED[name] = LoadedPlugin(path, module, files, digest, tables)
    return _LOADED[name]


def digest_of(files: Sequence[Path], folder: Path) -> str:
    """SHA-256 of the files' contents and of their names relative to ``folder``."""
    known = hashlib.sha256()
    for file in files:
        known.update(f"{file.relative_to(folder)}\0{hashlib.sha256(file.read_bytes()).hexdigest()}\0".encode())
    return known.hexdigest()


def _run(path: Path, name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None  # its suffix is .py
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        where = "".join(f", line {line}" for line in _lines(error, path))
        remedy = f"fix that file{_hidden_beside(error, path)}"
        raise UsageError(expected=f"METHODS = {{name: class}} in {path}", got=f"{error!r}{where}", remedy=remedy) from error
    return module


def _lines(error: BaseException, path: Path) -> list[int]:
    """The line of ``path`` at which the error arose."""
    found, trace = [], error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == str(path):
            found = [trace.tb_lineno]
        trace = trace.tb_next
    return found


def _hidden_beside(error: Exception, path: Path) -> str:
    """A hint where the file wanted a neighbour whose name another module has."""
    name = getattr(error, "name", None) or ""
    rival = path.parent / f"{name.split('.')[0]}.py"
    return f"; {rival} is hidden by another module of that name: rename it" if name and rival.is_file() else ""


def imported_beside(path: Path) -> set[Path]:
    """The files in the same folder that ``path`` imports, and what these import. Raises :class:`UsageError` on a name that
    another plugin's neighbour has already taken.
    """
    found: set[Path] = set()
    waiting = [path]
    while waiting:
        for name in sorted(_imported_names(waiting.pop())):
            new = set(_beside(name, path)) - found - {path}
            found |= new
            waiting += new
    return found


def _imported_names(path: Path) -> set[str]:
    try:
        tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError):  # said by running the file
        return set()
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module.split(".")[0])
    return names


def _beside(name: str, path: Path) -> Iterator[Path]:
    """The files of module ``name`` where it lies beside ``path``, and no module of that name elsewhere comes before it."""
    own = path.parent / f"{name}.py"
    package = path.parent / name / "__init__.py"
    if not (own.is_file() or package.is_file()):
        return
    origin = _origin(name)
    if origin in (own, package):
        yield from [own] if origin == own else sorted(package.parent.rglob("*.py"))
    elif any(origin in loaded.files for loaded in _LOADED.values()):
        raise UsageError(
            expected=f"plugins whose neighbours have different names; {path} imports {name}",
            got=f"{origin}, which another plugin has imported under that name",
            remedy="rename one of the two files",
        )


def _origin(name: str) -> Path | None:
    """The file that ``import name`` reads."""
    try:
        spec = importlib.util.find_spec(name)
    except (ValueError, ImportError):
        return None
    return Path(spec.origin).resolve() if spec is not None and spec.origin else None


def _table(module: ModuleType, name: str, file: Path) -> dict[str, Callable[..., Any]]:
    """The mapping ``name`` of a module; empty where it has none."""
    table = getattr(module, name, {})
    if not isinstance(table, Mapping) or not all(isinstance(key, str) and callable(value) for key, value in table.items()):
        raise UsageError(expected=f"{name} = {{name: class}} in {file}", got=f"{name} = {table!r}"[:200], remedy=GUIDE)
    if wrong := [key for key in table if not key or SIGNS & set(key)]:
        expected = f"names in {name} of {file} without : + , = / and spaces"
        raise UsageError(expected=expected, got=repr(wrong[0]), remedy="rename it")
    return dict(table)


def check_method(name: str, kind: Any, origin: str) -> None:
    """Raise :class:`UsageError` on a class, out of a file or package, that lacks what every method has."""
    if not (isinstance(kind, type) and is_dataclass(kind)):
        remedy = f"write @dataclass(frozen=True) above the class; {GUIDE}"
        raise UsageError(expected=f"{name!r} in {origin} to be a dataclass", got=repr(kind), remedy=remedy)
    own = {one.name for one in fields(kind)}
    if lacking := [member for member in MEMBERS if member not in own and not hasattr(kind, member)]:
        got = f"no {' and no '.join(lacking)}"
        raise UsageError(expected=f"label, plan and attach in {kind.__name__} of {origin}", got=got, remedy=GUIDE)


def plugin_modules() -> list[ModuleType]:
    """Every loaded plugin and what it has imported from beside it: another machine cannot import them by name."""
    beside = {file for loaded in _LOADED.values() for file in loaded.files}
    return [m for m in list(sys.modules.values()) if (file := getattr(m, "__file__", None)) and Path(file) in beside]


def qualified_names(paths: Sequence[Path]) -> dict[Path, str]:
    """The shortest end of each path that no other has, without ``.py``: ``mine``, or ``a/mine`` and ``b/mine``."""
    whole = {path: path.with_suffix("").as_posix() for path in paths}
    names = {}
    for path, own in whole.items():
        parts = own.strip("/").split("/")
        ends = ["/".join(parts[-n:]) for n in range(1, len(parts) + 1)]
        names[path] = next((end for end in ends if sum(f"/{end}" == w[-len(end) - 1 :] for w in whole.values()) == 1), own)
    return names
