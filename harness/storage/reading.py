"""Images read, checked and decoded by threads of their own, while whoever asked for them is busy with earlier ones."""

from __future__ import annotations

import math
import threading
import weakref
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np

from harness.errors import ArtifactError
from harness.storage.images import Pixels, decode_rgb, write_planes
from harness.storage.writing import THREADS

AHEAD_BYTES = 2**28  # of decoded images that nobody has taken yet, at most, unless one reading alone is larger
MOST_FREE = 3  # arrays that wait to be used again
AGAIN = "delete it, then make or copy it again"
Files = Sequence[tuple[Path, str | None]]  # image files, and the digest that the content of each must have


class Memory:
    """Large arrays that are used again when nobody refers to them: new ones cost the kernel a tenth of the time of decoding."""

    def __init__(self) -> None:
        self.free: list[Pixels] = []

    def empty(self, *shape: int) -> Pixels:
        """uint8 of this shape with any content."""
        size = math.prod(shape)
        try:
            memory = self.free.pop()
        except IndexError:
            memory = np.empty(size, np.uint8)
        if memory.size != size:
            memory = np.empty(size, np.uint8)
        lent = np.frombuffer(memory.data, np.uint8)  # what is made of it refers to this array, and not to ``memory``
        weakref.finalize(lent, self._give, memory).atexit = False
        return lent.reshape(shape)

    def _give(self, memory: Pixels) -> None:
        if len(self.free) < MOST_FREE:
            self.free.append(memory)


class Reader:
    """A few threads, and the memory that decoded images may take before they are asked for."""

    def __init__(self, threads: int = THREADS, ahead_bytes: int = AHEAD_BYTES) -> None:
        self.pool = ThreadPoolExecutor(threads, thread_name_prefix="reading")
        self.most, self.usual = ahead_bytes, 0  # bytes; the usual ones of one reading are known when something has been read
        self.waiting: deque[Reading] = deque()
        self.under_way: list[Reading] = []
        self.lock = threading.RLock()
        self.memory = Memory()

    def begin(self, files: Files, remedy: str = AGAIN) -> Reading:
        """Read image files of one size as soon as there is room for them, about in the order in which they will be taken."""
        reading = Reading(self, files, remedy)
        with self.lock:
            self.waiting.append(reading)
            self._go_on()
        return reading

    def close(self) -> None:
        """Read nothing more."""
        with self.lock:
            self.waiting.clear()
        self.pool.shutdown(wait=True, cancel_futures=True)

    def want(self, reading: Reading) -> None:
        """Somebody waits for it: it is begun whether there is room or not."""
        with self.lock:
            if reading in self.waiting:
                self.waiting.remove(reading)
                self._start(reading)

    def has_read(self, size: int) -> None:
        """A reading takes ``size`` bytes, and the next ones will, too."""
        with self.lock:
            self.usual = size
            self._go_on()

    def leave(self, reading: Reading) -> None:
        """Its images belong to whoever asked for them."""
        with self.lock:
            if reading in self.under_way:
                self.under_way.remove(reading)
                self._go_on()

    def _go_on(self) -> None:
        while self.waiting and (not self.under_way or 0 < self.usual * (len(self.under_way) + 1) <= self.most):
            self._start(self.waiting.popleft())

    def _start(self, reading: Reading) -> None:
        self.under_way.append(reading)
        reading.start()


class Reading:
    """Images of one size under way: that of the first file; ``remedy`` is for those of another."""

    def __init__(self, reader: Reader, files: Files, remedy: str) -> None:
        self.reader, self.files, self.remedy = reader, files, remedy
        self.parts: list[Future[None]] = []
        self.images: Pixels | None = None
        self.first = threading.Event()  # has been decoded, or cannot be

    def start(self) -> None:
        """Queue its files; the reader does it once."""
        self.parts = [self.reader.pool.submit(self._read, place, *file) for place, file in enumerate(self.files)]

    def result(self) -> Pixels:
        """uint8 [B, 3, H, W]; waits for them. Raises :class:`ArtifactError` on a damaged file, or one of another size."""
        self.reader.want(self)
        try:
            for part in self.parts:
                part.result()
        finally:
            self.reader.leave(self)
        assert self.images is not None
        return self.images

    def _read(self, place: int, path: Path, expected: str | None) -> None:
        if not place:
            try:
                image = decode_rgb(path, expected)
                self.images = self.reader.memory.empty(len(self.files), 3, image.height, image.width)
                self.reader.has_read(self.images.nbytes)
                write_planes(image, self.images[0])
            finally:
                self.first.set()
            return
        self.first.wait()
        if self.images is None:
            raise CancelledError  # what the first one raised is told
        image = decode_rgb(path, expected)
        check_size((image.height, image.width), self.images.shape[2:], path, self.files[0][0], self.remedy)
        write_planes(image, self.images[place])


def read_ahead(files: Sequence[Path], size: int, remedy: str) -> Iterator[Pixels]:
    """uint8 [B, 3, H, W] of files of one size, ``size`` of them at a time; the next ones are read meanwhile."""
    reader = Reader()
    parts = [files[start : start + size] for start in range(0, len(files), size)]
    begun = [reader.begin([(path, None) for path in part], remedy) for part in parts[:1]]
    shape: tuple[int, ...] | None = None
    try:
        for number, part in enumerate(parts):
            begun += [reader.begin([(path, None) for path in following], remedy) for following in parts[number + 1 : number + 2]]
            reading = begun.pop(0)
            try:
                images = reading.result()
            finally:
                if reading.images is not None and shape is not None:  # first in order, whatever else is wrong with a later one
                    check_size(reading.images.shape[2:], shape[2:], part[0], files[0], remedy)
            shape = shape or images.shape
            yield images
    finally:
        reader.close()


def check_size(found: tuple[int, ...], wanted: tuple[int, ...], path: Path, first: Path, remedy: str) -> None:
    """Raise :class:`ArtifactError` on an image of another height or width than the first one; either may be the odd one."""
    if found != wanted:
        raise ArtifactError(
            expected=f"images of one size, {wanted[1]} x {wanted[0]}",
            got=f"{found[1]} x {found[0]}: {path}, unlike {first}",
            remedy=remedy,
        )
