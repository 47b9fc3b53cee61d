"""One version of the record format, one reader, one page: every version that is not read is refused by its number."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path

import pytest

from harness.errors import ArtifactError
from harness.history.bundle import MANIFEST, verify_bundle, write_bundle
from harness.history.export import export_history, import_history
from harness.history.packing import Packed, pack, parse_header, unpack
from harness.history.store import History
from harness.paths import ROOT
from harness.results import Failure, Fault, MethodPart, MethodRecord, Score, TimingSample
from harness.storage.layout import FILES, FOLDERS
from harness.storage.records import FORMAT, read_json, read_run, write_json
from tests.harness.history.test_bundle import rewrite
from tests.runs import whole_run

OTHERS = (2, 99, -1, "1", None, True, 1.0)


@pytest.mark.parametrize("other", OTHERS)
def test_another_version_is_refused_with_one_message(tmp_path: Path, other: object) -> None:
    run = whole_run(tmp_path / "run")
    named = "none" if other is None else f"record format {other!r}"
    newer = type(other) is int and other > FORMAT
    remedy = "a newer ilf-bench wrote it: update this one" if newer else "read it with the version of ilf-bench that wrote it"
    message = rf"expected record format {FORMAT} at .*; got {named}; remedy: {remedy}"

    spec = read_json(run.path / "spec.json")
    write_json(run.path / "spec.json", spec | {"format": other})
    with pytest.raises(ArtifactError, match=message):
        read_run(run.path)
    write_json(run.path / "spec.json", spec)

    header = parse_header(pack(run).header)
    header.pop("values_sha256")
    with pytest.raises(ArtifactError, match=message):
        unpack(Packed.seal(header | {"format": other}, []))

    write_bundle(run.path, tmp_path / "b.zip")
    changed = json.dumps({"kind": "ilf-bench bundle", "format": other, "files": {}}).encode()
    rewrite(tmp_path / "b.zip", lambda name, data: changed if name == MANIFEST else data)
    with pytest.raises(ArtifactError, match=message):
        verify_bundle(tmp_path / "b.zip")

    History(tmp_path / "h.sqlite").append(run)
    export_history(History(tmp_path / "h.sqlite"), tmp_path / "out.json")
    content = json.loads((tmp_path / "out.json").read_text())
    (tmp_path / "out.json").write_text(json.dumps(content | {"format": other}))
    with pytest.raises(ArtifactError, match=message):
        import_history(History(tmp_path / "other.sqlite"), tmp_path / "out.json")


def test_the_page_names_every_field_and_every_file() -> None:
    page = (ROOT / "docs" / "format.md").read_text()
    kinds = (MethodRecord, MethodPart, Score, Failure, TimingSample, Fault)
    names = {field.name for kind in kinds for field in fields(kind)} | set(FILES)
    assert not [name for name in names if f"`{name}`" not in page]
    assert not [name for name in FOLDERS if f"`{name}/" not in page]
    assert f"Version {FORMAT}." in page
