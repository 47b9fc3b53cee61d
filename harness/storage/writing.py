"""Images encoded, hashed and written by threads of their own, while whoever makes them goes on making others."""

from __future__ import annotations

import itertools
import os
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor, wait
from pathlib import Path

from harness.storage.files import digest, write_bytes
from harness.storage.images import Pixels, encode_png

THREADS = max(1, min(8, len(os.sched_getaffinity(0))))  # compression and hashing let go of Python's lock
NICE = 10  # of these threads
WAITING_BYTES = 2**28  # of pixels that have not been encoded, at most, unless one batch alone is larger


class Writer:
    """A few threads, and the memory that images may take while they wait for one."""

    def __init__(self, threads: int = THREADS, waiting_bytes: int = WAITING_BYTES) -> None:
        started = itertools.count()
        self.pool = ThreadPoolExecutor(threads, "images", lambda: _yield_to_others(idle=next(started) % 2 == 1))
        self.most, self.waiting = waiting_bytes, 0
        self.room = threading.Condition()

    def chunk(self) -> Chunk:
        """Images that are stored together."""
        return Chunk(self)

    def close(self) -> None:
        """Finish what is being written, and drop what is not: without their receipt those images are made again."""
        self.pool.shutdown(wait=True, cancel_futures=True)

    def take(self, size: int) -> None:
        """Wait until ``size`` bytes of pixels may wait, too."""
        with self.room:
            self.room.wait_for(lambda: not self.waiting or self.waiting + size <= self.most)
            self.waiting += size

    def give(self, size: int) -> None:
        """Make room again."""
        with self.room:
            self.waiting -= size
            self.room.notify_all()


class Chunk:
    """The images of one receipt. They are handed over with :meth:`add`, and :meth:`close` says when all of them are on disk."""

    def __init__(self, writer: Writer) -> None:
        self.writer = writer
        self.images: dict[int, Future[str]] = {}

    def add(self, images: Pixels, indices: Sequence[int], path_of: Callable[[int], Path]) -> None:
        """Hand over uint8 [B, 3, H, W] of sample ``indices``, and where each lies; waits where too many images wait already.

        Raises what an earlier image of the chunk could not be stored for.
        """
        for earlier in self.images.values():
            if earlier.done():
                earlier.result()
        size = images.nbytes
        self.writer.take(size)
        left, lock = len(images), threading.Lock()

        def stored(future: Future[str]) -> None:
            nonlocal left
            with lock:
                left -= 1
                last = not left
            if last:
                self.writer.give(size)

        for image, index in zip(images, indices, strict=True):
            self.images[index] = self.writer.pool.submit(_store, image, index, path_of)
            self.images[index].add_done_callback(stored)

    def close(self, receipt: Callable[[dict[int, str]], None]) -> Future[None]:
        """Done when every image is on disk and ``receipt``, which is given their digests after that, has been written."""
        whole: Future[None] = Future()
        left, lock = len(self.images), threading.Lock()

        def stored(future: Future[str]) -> None:
            nonlocal left
            with lock:
                left -= 1
                last = not left
            if last:
                try:
                    receipt({index: image.result() for index, image in self.images.items()})
                    whole.set_result(None)
                except (Exception, CancelledError) as error:
                    whole.set_exception(error)

        for image in list(self.images.values()):
            image.add_done_callback(stored)
        return whole

    def abandon(self) -> None:
        """Store no more of it, and wait for what is being written, so that it cannot overwrite what comes next."""
        for image in self.images.values():
            image.cancel()
        wait(self.images.values())


def _yield_to_others(*, idle: bool) -> None:
    """Let the thread that feeds the device go first wherever both could run. Linux alone has priorities of single threads.

    An ``idle`` thread takes only time that nobody wants, and gives way at once; the others go on where the machine is busy.
    """
    if sys.platform == "linux":
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICE)
        if idle:
            os.sched_setscheduler(threading.get_native_id(), os.SCHED_IDLE, os.sched_param(0))


def _store(image: Pixels, index: int, path_of: Callable[[int], Path]) -> str:
    """The digest of the file that was written."""
    content = encode_png(image)
    write_bytes(path_of(index), content)
    return digest(content)
