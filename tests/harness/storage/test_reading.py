"""Images read in the background: the same pixels, in bounded memory, and one clear error."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from harness.errors import ArtifactError
from harness.storage import reading
from harness.storage.files import digest
from harness.storage.images import decode_image, encode_png
from harness.storage.reading import Memory, Reader, read_ahead

Files = list[tuple[Path, str | None]]


@pytest.fixture
def files(tmp_path: Path) -> Files:
    """Twelve images of 8 x 8."""
    random, found = np.random.default_rng(0), Files()
    for number in range(12):
        content = encode_png(random.integers(0, 256, (3, 8, 8), dtype=np.uint8))
        path = tmp_path / f"{number}.png"
        path.write_bytes(content)
        found.append((path, digest(content)))
    return found


@pytest.fixture
def reader() -> Iterator[Reader]:
    made = Reader(threads=2)
    yield made
    made.close()


@pytest.mark.parametrize("threads", [1, 3])
def test_it_reads_what_is_there(files: Files, threads: int) -> None:
    reader = Reader(threads)
    parts = [reader.begin(files[start : start + 4]) for start in (0, 4, 8)]
    found = np.concatenate([part.result() for part in parts])
    np.testing.assert_array_equal(found, np.stack([decode_image(path) for path, _ in files]))
    assert found.flags.c_contiguous
    np.testing.assert_array_equal(parts[0].result(), found[:4])
    reader.close()


def test_it_holds_no_more_than_its_memory_and_what_is_wanted(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    """Four images have 768 bytes: there is room for two readings that nobody has asked for yet."""
    opened: list[Path] = []
    decoded = threading.Semaphore(0)
    real = reading.decode_rgb

    def counted(path: Path, expected: str | None) -> Image.Image:
        opened.append(path)
        image = real(path, expected)
        decoded.release()
        return image

    monkeypatch.setattr(reading, "decode_rgb", counted)
    reader = Reader(threads=2, ahead_bytes=2 * 768)
    parts = [reader.begin(files[start : start + 4]) for start in (0, 4, 8)]
    for _ in range(8):
        assert decoded.acquire(timeout=20)
    assert {path.name for path in opened} == {f"{i}.png" for i in range(8)}
    parts[2].result()
    assert len(opened) == 12, "what is asked for is read whether there is room or not"
    parts[0].result()
    later = [reader.begin(files[:4]) for _ in range(2)]
    parts[1].result()
    assert [len(part.result()) for part in later] == [4, 4]
    reader.close()


def test_the_first_damaged_file_is_named_and_the_next_reading_goes_on(files: Files, reader: Reader) -> None:
    files[2][0].write_bytes(b"no image")
    files[4][0].write_bytes(files[5][0].read_bytes())
    bad, first_bad, good = (reader.begin(files[start : start + 4]) for start in (0, 4, 8))
    with pytest.raises(ArtifactError, match=r"2\.png.*another content"):
        bad.result()
    with pytest.raises(ArtifactError, match=r"4\.png.*another content"):
        first_bad.result()
    assert good.result().shape == (4, 3, 8, 8)


def test_the_first_image_says_what_size_all_have(files: Files, reader: Reader) -> None:
    files[3][0].write_bytes(encode_png(np.zeros((3, 8, 6), dtype=np.uint8)))
    with pytest.raises(ArtifactError, match=r"one size, 8 x 8; got 6 x 8: .*3\.png, unlike .*0\.png; remedy: resize"):
        reader.begin([(path, None) for path, _ in files[:4]], "resize").result()
    paths = [path for path, _ in files]
    with pytest.raises(ArtifactError, match=r"one size, 8 x 8; got 6 x 8: .*3\.png"):
        list(read_ahead(paths, 3, "resize"))


def test_a_closed_reader_reads_no_more(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    go, began, opened = threading.Event(), threading.Event(), []

    def slow(path: Path, expected: str | None) -> Image.Image:
        opened.append(path)
        began.set()
        assert go.wait(20)
        return Image.new("RGB", (8, 8))

    monkeypatch.setattr(reading, "decode_rgb", slow)
    reader = Reader(threads=1)
    reader.begin(files[:4])
    reader.begin(files[4:])
    assert began.wait(20)
    threading.Timer(0.2, go.set).start()
    reader.close()
    assert len(opened) <= 2


def test_memory_is_used_again_when_nothing_refers_to_it() -> None:
    memory = Memory()
    first = memory.empty(2, 3, 4, 4)
    place = first.ctypes.data
    row, tensor = first[1][0], torch.from_numpy(first)[0]
    del first
    second = memory.empty(2, 3, 4, 4)
    assert second.ctypes.data != place, "a slice and a tensor still refer to it"
    del row
    assert memory.free == []
    del tensor
    assert [each.ctypes.data for each in memory.free] == [place]
    assert memory.empty(2, 3, 4, 4).ctypes.data == place and memory.empty(1, 3, 4, 4).shape == (1, 3, 4, 4)
