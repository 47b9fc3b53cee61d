"""A simulated CUDA device for tests on a CPU: builds ``device.cpp`` with g++, and lets torch's own front end believe in it.

    with simulated_cuda() as device:
        torch.ones(3, device="cuda").sum().item()
        device.waits  # Counter({Wait("_local_scalar_dense", "tests/...py:7"): 1})

It holds no fast memory and has no kernels: what it shows is where tensors live, what CUDA would refuse, when the host
waits for the device, and how many bytes are allocated. It cannot run Triton (so no inductor).
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import shutil
import subprocess
import sys
import types
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from time import perf_counter
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

SOURCE = Path(__file__).with_name("device.cpp")
ROOT = SOURCE.parents[2]
BUILT = ROOT / ".pytest_cache" / "simulated_cuda"
LIMITS: dict[int, int] = {}  # bytes that a device has at the moment, where that is less than its whole
WAITED = [0]  # how often the host has waited since the device was there
NAME, CAPABILITY, TOTAL_BYTES, DEVICES = "NVIDIA H200", (9, 0), 141 * 2**30, 2


def missing() -> str:
    """Why the device cannot be built here, or nothing."""
    if torch.version.cuda is not None or torch.cuda.is_available():
        return "a CUDA build of torch has kernels of its own"
    return "" if shutil.which("g++") else "g++ is missing (Debian: apt-get install g++)"


@dataclass(frozen=True)
class Wait:
    """The host waited for the device: why, and at which line of the project and of the library that it called."""

    why: str
    where: str


def _where() -> str:
    """The innermost frame of the project's packages, and the innermost of all where that is another."""
    frame: Any = sys._getframe(2)
    inner = f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno}" if frame else "another thread"
    while frame is not None:
        path = frame.f_code.co_filename
        if path.startswith(f"{ROOT}/") and not path.startswith((f"{ROOT}/.venv", f"{ROOT}/tests/")):
            own = f"{path.removeprefix(f'{ROOT}/')}:{frame.f_lineno}"
            return own if own.endswith(f"/{inner}") else f"{own} ({inner})"
        frame = frame.f_back
    return inner


class SimulatedCuda:
    """Two devices. ``waits`` counts each wait of the host since the last :meth:`forget`."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self.library, self.waits = library, Counter[Wait]()
        for name in ("sim_allocated", "sim_peak", "sim_mark"):
            getattr(library, name).restype = ctypes.c_uint64
        library.sim_limit.argtypes = [ctypes.c_int, ctypes.c_uint64]
        library.sim_wait_for.argtypes = [ctypes.c_uint64]
        self._callback = ctypes.CFUNCTYPE(None, ctypes.c_char_p)(self._noted)
        library.sim_on_wait(self._callback)

    def _noted(self, why: bytes) -> None:
        WAITED[0] += 1
        self.waits[Wait(why.decode(), _where())] += 1

    def forget(self) -> None:
        """Count from here."""
        self.waits.clear()

    def allocated(self, index: int = 0) -> int:
        """Bytes of all tensors of a device."""
        return int(self.library.sim_allocated(index))

    @contextmanager
    def memory(self, extra: int, index: int = 0) -> Iterator[None]:
        """Let the device have ``extra`` bytes beside those that are allocated now; more raises ``torch.OutOfMemoryError``."""
        LIMITS[index] = self.allocated(index) + extra
        self.library.sim_limit(index, LIMITS[index])
        try:
            yield
        finally:
            del LIMITS[index]
            self.library.sim_limit(index, TOTAL_BYTES)


@cache
def _library() -> ctypes.CDLL:
    """Built once for this source and this torch, loaded once for this process: what it registers stays."""
    root = Path(torch.__file__).parent
    key = hashlib.sha256(SOURCE.read_bytes() + f"{torch.__version__} {root}".encode()).hexdigest()[:16]
    target = BUILT / f"{key}.so"
    if not target.exists():
        BUILT.mkdir(parents=True, exist_ok=True)
        temporary = target.with_suffix(f".{os.getpid()}")
        include, libraries = root / "include", root / "lib"
        command = ["g++", "-std=c++20", "-O1", "-shared", "-fPIC", f"-I{include}", f"-I{include}/torch/csrc/api/include"]
        command += [str(SOURCE), f"-L{libraries}", "-lc10", "-ltorch_cpu", f"-Wl,-rpath,{libraries}", "-o", str(temporary)]
        subprocess.run(command, check=True, capture_output=True, text=True)
        os.replace(temporary, target)
    return ctypes.CDLL(str(target), mode=ctypes.RTLD_GLOBAL)


def _index(device: Any) -> int:
    """The number of a device, however it is named."""
    if isinstance(device, int):
        return device
    index = None if device is None else torch.device(device).index
    return int(_library().sim_device()) if index is None else index


class Event:
    """``torch.cuda.Event``: times are the host's, and :meth:`synchronize` waits for what was queued before :meth:`record`."""

    def __init__(self, enable_timing: bool = False, **others: Any) -> None:
        self.time_s = self.mark = None

    def record(self, stream: Any = None) -> None:
        self.time_s, self.mark = perf_counter(), _library().sim_mark()

    def synchronize(self) -> None:
        _library().sim_wait_for(self.mark or 0)

    def query(self) -> bool:
        return True

    def elapsed_time(self, other: Event) -> float:
        assert self.time_s is not None and other.time_s is not None, "an event that was never recorded"
        return 1000 * (other.time_s - self.time_s)


class Stream:
    """``torch.cuda.Stream``; there is one order of work on the device, whatever the stream."""

    def wait_stream(self, stream: Any) -> None:
        pass

    def synchronize(self) -> None:
        _library().sim_wait(b"synchronize")


class CUDAGraph(TorchDispatchMode):
    """``torch.cuda.CUDAGraph``: what was called during the capture is called again on the same tensors.

    As on a GPU a replay reads its inputs and weights where they lay, writes its outputs where they lay, and knows nothing of
    what Python would decide differently by then.
    """

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Any, Any, Any, Any]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        self.calls.append((func, args, kwargs or {}, result))
        return result

    def replay(self) -> None:
        for func, args, kwargs, result in self.calls:
            again = func(*args, **kwargs)
            for held, new in zip(tree_leaves(result), tree_leaves(again), strict=True):
                if isinstance(held, torch.Tensor) and held.data_ptr() != new.data_ptr():
                    held.copy_(new)


@contextmanager
def _capture(graph: CUDAGraph, pool: Any = None) -> Iterator[None]:
    before = WAITED[0]
    with graph:
        yield
    if WAITED[0] != before:
        raise RuntimeError("CUDA error: operation not permitted when stream is capturing")


def _properties(device: Any = None) -> Any:
    major, minor = CAPABILITY
    uuid = f"simulated-{_index(device)}"
    return types.SimpleNamespace(name=NAME, uuid=uuid, total_memory=TOTAL_BYTES, major=major, minor=minor)


def _front_end(library: ctypes.CDLL) -> dict[str, Any]:
    """What ``torch.cuda`` answers."""

    def synchronize(device: Any = None) -> None:
        library.sim_wait(b"synchronize")

    def exchange(device: int) -> int:
        before = int(library.sim_device())
        if device >= 0:
            library.sim_set_device(device)
        return before

    def free(device: Any = None) -> tuple[int, int]:
        limit = min(LIMITS.get(_index(device), TOTAL_BYTES), TOTAL_BYTES)
        return max(0, limit - library.sim_allocated(_index(device))), limit

    return {
        "_lazy_init": lambda: None,
        "is_available": lambda: True,
        "is_initialized": lambda: True,
        "is_bf16_supported": lambda including_emulation=True: True,
        "device_count": lambda: DEVICES,
        "current_device": lambda: int(library.sim_device()),
        "set_device": lambda device: library.sim_set_device(_index(device)),
        "_exchange_device": exchange,
        "_maybe_exchange_device": exchange,
        "synchronize": synchronize,
        "Event": Event,
        "current_stream": lambda device=None: Stream(),
        "Stream": Stream,
        "stream": lambda stream: nullcontext(),
        "CUDAGraph": CUDAGraph,
        "graph": _capture,
        "graph_pool_handle": object,
        "get_device_name": lambda device=None: NAME,
        "get_device_capability": lambda device=None: CAPABILITY,
        "get_device_properties": _properties,
        "empty_cache": lambda: None,
        "mem_get_info": free,
        "memory_allocated": lambda device=None: int(library.sim_allocated(_index(device))),
        "memory_reserved": lambda device=None: int(library.sim_allocated(_index(device))),
        "max_memory_allocated": lambda device=None: int(library.sim_peak(_index(device))),
        "max_memory_reserved": lambda device=None: int(library.sim_peak(_index(device))),
        "reset_peak_memory_stats": lambda device=None: library.sim_reset_peak(_index(device)),
    }


def _restored(storage: torch.UntypedStorage, location: str) -> torch.UntypedStorage | None:
    """A storage that ``torch.load`` reads, on the device; a build without CUDA can make none there by itself."""
    if not location.startswith("cuda"):
        return None
    return torch.empty(0, dtype=torch.uint8).set_(storage).to(location).untyped_storage()


@contextmanager
def simulated_cuda() -> Iterator[SimulatedCuda]:
    """torch sees two CUDA devices inside the context; tensors must not outlive it."""
    import torch.cuda.amp.common as common

    library = _library()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in _front_end(library).items():
            patch.setattr(torch.cuda, name, value)
        patch.setattr(common, "amp_definitely_not_available", lambda: False)
        known = torch.serialization._package_registry
        patch.setattr(torch.serialization, "_package_registry", [(0, lambda storage: None, _restored), *known])
        library.sim_set_device(0)
        yield SimulatedCuda(library)
        library.sim_on_wait(None)
