"""Array files hold numbers, as many bytes of them as they say, and never more than is stated."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest

from harness.errors import ArtifactError
from harness.storage import arrays
from harness.storage.arrays import ARRAY_BYTES, parse_array, read_array, read_arrays
from harness.storage.files import file_digest
from harness.storage.records import read_json, read_run, write_json
from metrics.moments import holds_statistics, read_statistics
from metrics.reference import load_reference
from tests.runs import whole_run
from tests.security.crafted import MIB, PICKLE, UNSAFE_ADVICE, bounded, npy, text_array, zip_of_zeros, zipped

ODD = {
    "more than it has": npy("(1000000000000,)"),
    "less than it has": npy("(1,)", body=bytes(16)),
    "a negative shape": npy("(-1,)", body=bytes(8)),
    "objects": npy("(1,)", "|O", body=b"\x80\x04N."),
    "a structure": npy("(1,)", "|V8", body=bytes(8)),
    "no bytes": npy("(1000000,)", "<U0"),
    "a shape beyond all": npy("(0, 1000000000000000000000)"),
    "a header of megabytes": npy("(1,)", body=bytes(8), version=2, padding=4 * MIB),
    "a header of gigabytes": b"\x93NUMPY\x02\x00\xff\xff\xff\xff" + b"(" * 100,
    "an expression": npy("(().__class__,)"),
    "nesting": npy("(" * 5000 + ")" * 5000),
    "a pickle": PICKLE,
    "nothing": b"",
}
ARRAYS = [
    np.arange(6.0).reshape(2, 3),
    np.asfortranarray(np.ones((3, 2), np.float32)),
    np.array("text"),
    np.zeros((0, 4)),
    np.array(3),
]


@pytest.mark.parametrize("kind", ODD)
def test_an_odd_array_is_one_message(kind: str, tmp_path: Path) -> None:
    (tmp_path / "x.npy").write_bytes(ODD[kind])
    with bounded(), pytest.raises(ArtifactError) as caught:
        read_array(tmp_path / "x.npy", None)
    assert not any(word in str(caught.value) for word in UNSAFE_ADVICE)


@pytest.mark.parametrize("array", ARRAYS, ids=str)
def test_arrays_are_read_as_numpy_reads_them(array: np.ndarray, tmp_path: Path) -> None:
    buffer = io.BytesIO()
    np.save(buffer, array)
    found = parse_array(buffer.getvalue())
    assert found.dtype == array.dtype and np.array_equal(found, array) and found.flags.writeable
    for save in (np.savez, np.savez_compressed):
        save(tmp_path / "x.npz", a=array, b=array)
        both = read_arrays(tmp_path / "x.npz", ("a", "b"))
        assert np.array_equal(both["a"], array) and both["b"].dtype == array.dtype


def odd_reference(kind: str, path: Path) -> None:
    """A file that stands where features or statistics belong."""
    array = npy("(2,)", body=bytes(16))
    methods = {"bzip2": zipfile.ZIP_BZIP2, "lzma": zipfile.ZIP_LZMA}
    members = {
        "bzip2": {"mu.npy": array, "features.npy": array},
        "lzma": {"mu.npy": array, "features.npy": array},
        "shapes without numbers": {"mu.npy": npy("(200000,)"), "sigma.npy": npy("(200000, 200000)"), "features.npy": npy("(9,)")},
        "pickles": {"mu.npy": PICKLE, "sigma.npy": PICKLE, "features.npy": PICKLE, "fingerprint.npy": PICKLE},
        "integers": {"features.npy": npy("(2, 3)", "<i8", bytes(48)), "fingerprint.npy": text_array("{}")},
        "a fingerprint that is none": {"features.npy": npy("(2, 3)", "<f8", bytes(48)), "fingerprint.npy": text_array("[1]")},
    }
    if kind == "zeros":
        zip_of_zeros(path, "features.npy", npy("(2097152, 64)"), 1)
    elif kind == "torn":
        path.write_bytes(b"PK\x03\x04" + bytes(100))
    else:
        zipped(path, members[kind], methods.get(kind, zipfile.ZIP_DEFLATED))


class Extractor:
    """Three features that no network took."""

    width = 3

    def fingerprint(self) -> dict[str, str]:
        return {"extractor": "e"}


REFERENCES = ["bzip2", "lzma", "shapes without numbers", "pickles", "integers", "a fingerprint that is none", "zeros", "torn"]


@pytest.mark.parametrize("kind", REFERENCES)
def test_an_odd_reference_is_one_message(kind: str, tmp_path: Path) -> None:
    odd_reference(kind, tmp_path / "x.npz")
    for read in (read_statistics, lambda path: load_reference(path, Extractor())):
        with bounded(), pytest.raises(ArtifactError) as caught:
            read(tmp_path / "x.npz")
        assert not any(word in str(caught.value) for word in UNSAFE_ADVICE)
    with bounded():
        holds_statistics(tmp_path / "x.npz")


@pytest.mark.slow
def test_the_largest_array_is_within_the_bound(tmp_path: Path) -> None:
    rows = ARRAY_BYTES // 4 // 1024
    zip_of_zeros(tmp_path / "x.npz", "a.npy", npy(f"({rows}, 1024)", "<f4"), ARRAY_BYTES // MIB, zipfile.ZIP_STORED)
    with bounded():
        assert read_arrays(tmp_path / "x.npz", ("a",))["a"].shape == (rows, 1024)


def test_a_score_has_no_more_values_than_a_record_may_hold(tmp_path: Path) -> None:
    path = whole_run(tmp_path / "run").path
    record = next(each for each in sorted(path.glob("scores/*/*.json")) if each.with_suffix(".npy").exists())
    content = read_json(record)
    with record.with_suffix(".npy").open("wb") as file:  # sparse: as cheap to send as it is to make
        file.write(npy(f"({ARRAY_BYTES // 4 - 64},)", "<f4"))
        file.truncate(ARRAY_BYTES)
    content["digests"]["influence"] = file_digest(record.with_suffix(".npy"))
    write_json(record, content)
    with bounded(), pytest.raises(ArtifactError, match="more than 16 MiB"):
        read_run(path)


def test_all_scores_together_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = whole_run(tmp_path / "run").path
    monkeypatch.setattr(arrays, "RUN_BYTES", 100)
    with pytest.raises(ArtifactError, match="values in the scores"):
        read_run(path)


def test_a_covariance_wider_than_any_networks_is_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "wide.npz"
    np.savez(path, mu=np.zeros(4097), sigma=np.zeros((4097, 4097)))
    with pytest.raises(ArtifactError, match=r"sigma.npy has .* bytes, more than 128 MiB"):
        read_statistics(path)
