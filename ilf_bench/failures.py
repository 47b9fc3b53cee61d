"""What the command line says about an error, and the exit code it leaves with: one line, whatever has happened."""

from __future__ import annotations

import difflib
import errno
import os
import re
import resource
import shutil
import sqlite3
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from harness.errors import HarnessError
from harness.text import said

EXIT_USAGE, EXIT_UNFORESEEN, EXIT_IO = 64, 70, 74  # EX_USAGE, EX_SOFTWARE and EX_IOERR of sysexits.h
NATIVE = re.compile(r"\(os error (\d+)\)")  # of libraries written in Rust, which raise errors of their own
SQLITE = {"full": errno.ENOSPC, "readonly": errno.EACCES, "unable to open": errno.EACCES, "disk I/O": errno.EIO}
WRITTEN = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG, errno.EISDIR)


def explain(error: BaseException) -> tuple[str, int]:
    """The message, one line, and the exit code. The traceback of what nobody foresaw goes into a file that the line names."""
    if isinstance(error, HarnessError):
        return f"error: {error}", error.exit_code
    if hasattr(error, "format_message"):  # the usage errors of typer and of click share no base class
        return f"usage error: {usage(error)}", EXIT_USAGE
    if (system := as_os_error(error)) is not None:
        return f"error: {system_message(system)}", EXIT_IO
    if isinstance(error, MemoryError):
        return "error: expected enough memory; got none left; remedy: fewer images at a time, as --set batch=8", EXIT_IO
    file = write_log(error)
    where = f"the traceback is in {file}: report it with that file" if file else "no log file could be written"
    return f"error: unforeseen: {described(error)}; {where}", EXIT_UNFORESEEN


def described(error: BaseException) -> str:
    """An unforeseen error in one line: its type, its text, and the line of code that raised it."""
    text = said(f"{type(error).__name__}: {error}")
    frames = traceback.extract_tb(error.__traceback__)
    return f"{text} ({Path(frames[-1].filename).name}, line {frames[-1].lineno})" if frames else text


def write_log(error: BaseException) -> Path | None:
    """The traceback, the command and the versions, in the folder for temporary files; None where nothing can be written."""
    content = [time.strftime("%Y-%m-%dT%H:%M:%S%z"), f"command: {sys.argv}", f"python {sys.version}", ""]
    try:
        handle, name = tempfile.mkstemp(prefix="ilf-bench-", suffix=".log")
        with os.fdopen(handle, "w", encoding="utf-8", errors="backslashreplace") as file:
            file.write("\n".join(content) + "".join(traceback.format_exception(error)))
    except OSError:
        return None
    return Path(name)


def usage(error: Any) -> str:
    """The text of a usage error of typer, with the nearest option where one was mistyped."""
    option, context = getattr(error, "option_name", None), getattr(error, "ctx", None)
    if option is None or context is None or not hasattr(error, "possibilities"):
        return str(error.format_message())
    known = [name[2:] for parameter in context.command.params for name in parameter.opts if name.startswith("--")]
    near = difflib.get_close_matches(str(option).lstrip("-"), known, 1)
    hint = f"did you mean --{near[0]}?" if near else f"see {context.command_path} --help"
    return f"no such option: {option}; {hint}"


def as_os_error(error: BaseException) -> OSError | None:
    """The refusal of the operating system behind an error, which libraries wrap in errors of their own."""
    if isinstance(error, OSError):
        return error if error.errno is not None else None
    if isinstance(error, sqlite3.Error):
        number = next((number for word, number in SQLITE.items() if word in str(error)), None)
        return None if number is None else OSError(number, os.strerror(number), "the history")
    if found := NATIVE.search(str(error)):
        return OSError(int(found[1]), os.strerror(int(found[1])), None)
    return None


def system_message(error: OSError) -> str:
    """What was wanted of which file, what the system said, and a remedy for that very refusal."""
    path = Path(os.fsdecode(error.filename)) if isinstance(error.filename, str | bytes) else None
    number = error.errno or 0
    name = "a file" if path is None else str(path)
    said = f"{errno.errorcode.get(number, number)}, {error.strerror or os.strerror(number)}"
    remedy = REMEDIES.get(number, _unknown)(path)
    return f"expected to {operation(number, path)} {name}; got {said}; remedy: {remedy}"


def operation(number: int, path: Path | None) -> str:
    """What was tried, as far as the error and the file tell."""
    if number in WRITTEN:
        return "write"
    if path is None:
        return "use"
    if number in (errno.EACCES, errno.EPERM) and not os.path.lexists(path):
        return "create"
    if number in (errno.EACCES, errno.EPERM) and os.access(path, os.R_OK):
        return "write"
    return "read" if os.path.exists(path) else "open"


def _space(path: Path | None) -> str:
    place = _existing(path)
    free = shutil.disk_usage(place).free / 1e6
    return f"free some space on the file system of {place} ({free:.0f} MB are left), or name another folder{_variable(path)}"


def _quota(path: Path | None) -> str:
    return f"free some of your quota there (see `quota -s`), or name another folder{_variable(path)}"


def _read_only(path: Path | None) -> str:
    return f"that file system is mounted read-only: name a folder on another{_variable(path)}"


def _permission(path: Path | None) -> str:
    place = _existing(path)
    owner = place.stat()
    return (
        f"{place} belongs to user {owner.st_uid} with mode {owner.st_mode & 0o777:o}, and you are user {os.getuid()}: "
        f"ask its owner, or name another folder{_variable(path)}"
    )


def _absent(path: Path | None) -> str:
    if path is None:
        return "check the path"
    place = _existing(path)
    relative = "" if path.is_absolute() else f"; a relative path starts at {Path.cwd()}"
    return f"check the path: it exists as far as {place}{relative}"


def _no_folder(path: Path | None) -> str:
    return f"{_existing(path)} is a file where a folder is needed: move it away, or name another folder"


def _folder(path: Path | None) -> str:
    return "a folder lies there: name a file"


def _open_files(path: Path | None) -> str:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return f"too many files are open at once: raise the limit with `ulimit -n {max(hard, 4096)}` (it is {soft})"


def _long_name(path: Path | None) -> str:
    return "a shorter name, or a folder that lies higher"


def _damaged(path: Path | None) -> str:
    return "the disk or the network mount reports a fault: see `dmesg`, and copy what is there to another disk"


def _network(path: Path | None) -> str:
    return "check the network and the address, and call again"


def _memory(path: Path | None) -> str:
    return "memory is short: fewer workers, or fewer images at a time, as --set batch=8"


def _busy(path: Path | None) -> str:
    return "another process uses it: wait for that, and call again"


def _unknown(path: Path | None) -> str:
    return "see the system's message; name another file or folder"


REMEDIES: dict[int, Callable[[Path | None], str]] = {
    errno.ENOSPC: _space,
    errno.EDQUOT: _quota,
    errno.EFBIG: _quota,
    errno.EROFS: _read_only,
    errno.EACCES: _permission,
    errno.EPERM: _permission,
    errno.ENOENT: _absent,
    errno.ENOTDIR: _no_folder,
    errno.EEXIST: _no_folder,
    errno.EISDIR: _folder,
    errno.EMFILE: _open_files,
    errno.ENFILE: _open_files,
    errno.ENAMETOOLONG: _long_name,
    errno.ELOOP: _absent,
    errno.EIO: _damaged,
    errno.ESTALE: _damaged,
    errno.ENOMEM: _memory,
    errno.EAGAIN: _memory,
    errno.EBUSY: _busy,
    errno.ETXTBSY: _busy,
    **dict.fromkeys((errno.ECONNREFUSED, errno.ECONNRESET, errno.ETIMEDOUT, errno.EHOSTUNREACH, errno.ENETUNREACH), _network),
}


def _existing(path: Path | None) -> Path:
    """The path, or as much of it as there is."""
    start = Path.cwd() if path is None else path.absolute()
    return next((p for p in (start, *start.parents) if os.path.lexists(p)), Path("/"))


def _variable(path: Path | None) -> str:
    """The setting that decides where such a file lies: an environment variable for caches, else an option."""
    places = {
        "HF_HOME": os.environ.get("HF_HOME", "~/.cache/huggingface"),
        "XDG_CACHE_HOME": os.environ.get("XDG_CACHE_HOME", "~/.cache"),
        "TMPDIR": tempfile.gettempdir(),
    }
    for name, place in places.items():
        if path is not None and path.absolute().is_relative_to(Path(os.path.expanduser(place))):
            return f" with {name}"
    return " with --out"
