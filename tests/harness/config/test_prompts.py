"""Prompt lists in every layout that is read, and what is refused with which words."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from harness.config import prompts
from harness.config.prompts import LIMIT, load_prompts, prompt_note
from harness.errors import UsageError

WANTED = ("a <b>cat</b> & dog", "ein Kätzchen 🐈", "a cat, sitting")


def table(delimiter: str, header: str) -> str:
    cells = [f'"{text}"' for text in WANTED]
    return "\n".join([f"id{delimiter}{header}", *(f"{i}{delimiter}{cell}" for i, cell in enumerate(cells))]) + "\n"


FILES = {
    "list.txt": "\n".join(WANTED),
    "crlf.txt": "\r\n".join(WANTED) + "\r\n",
    "bom.txt": "\ufeff" + "\n".join(WANTED),
    "drawbench.csv": table(",", "Prompts"),
    "parti.tsv": table("\t", "Prompt"),
    "own.csv#what": table(",", "what"),
    "strings.json": json.dumps(WANTED),
    "objects.json": json.dumps([{"id": 1, "caption": text} for text in WANTED]),
    "meta_data.json": json.dumps({f"k{i}": {"category": "x", "prompt": text} for i, text in enumerate(WANTED)}),
    "captions_val2014.json": json.dumps(
        {"info": {}, "images": [{"id": 1}], "annotations": [{"image_id": 1, "id": i, "caption": t} for i, t in enumerate(WANTED)]}
    ),
    "lines.jsonl": "\n".join(json.dumps({"text": text}) for text in WANTED) + "\n\n",
}


@pytest.mark.parametrize("name", FILES)
def test_every_layout(tmp_path: Path, name: str) -> None:
    (tmp_path / name.partition("#")[0]).write_bytes(FILES[name].encode())
    assert load_prompts(str(tmp_path / name)).texts == WANTED


def test_blanks_are_dropped_and_duplicates_counted(tmp_path: Path) -> None:
    path = tmp_path / "list.txt"
    path.write_text("cat\n\n  \ndog\ncat\n \u2028x\n")
    listed = load_prompts(str(path))
    assert listed.texts == ("cat", "dog", "cat", "x")
    assert listed.record() | {"digest": ""} == {
        "source": str(path),
        "digest": "",
        "count": 4,
        "duplicates": 1,
        "blank_dropped": 2,
        "blank_at": "2, 3",
    }
    assert listed.repeated(6) == ("cat", "dog", "cat", "x", "cat", "dog")
    other = tmp_path / "other.txt"
    other.write_text("dog\ncat\ncat\nx\n")
    assert load_prompts(str(other)).digest != listed.digest


def test_classes() -> None:
    assert load_prompts("classes:3").texts == ("0", "1", "2")
    with pytest.raises(UsageError, match="classes:1000"):
        load_prompts("classes:many")


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("utf16.txt", "cat".encode("utf-16"), "UTF-16.*iconv"),
        ("utf16le.txt", "cat".encode("utf-16-le"), "zero byte.*iconv"),
        ("latin.txt", b"cat\ncaf\xe9\n", "0xe9 in line 2.*iconv"),
        ("utf16be.csv", "prompt\ncat\n".encode("utf-16"), "UTF-16.*iconv"),
        ("utf32.txt", "cat".encode("utf-32-be"), "zero byte.*iconv"),
        ("latin.json", '["caf\xe9"]'.encode("latin-1"), "0xe9 in line 1.*iconv"),
        ("long.txt", b"cat\n" + b"a" * (LIMIT + 1), "10,001 characters at entry 2"),
        ("empty.txt", b"\n \n", "at least one prompt"),
        ("empty.json", b"[]", "at least one prompt"),
        ("table.csv", b"id,score\n1,2\n", "prompt, caption.*id, score"),
        ("table.csv#what", b"id,prompt\n1,2\n", "'what'.*id, prompt"),
        ("nothing.csv", b"", "no columns"),
        ("broken.json", b"[1,", "JSON in"),
        ("number.json", b'["cat", 3]', "int at entry 2"),
        ("scalar.json", b"3", "a list or an object"),
        ("broken.jsonl", b'"cat"\n{', "line 2"),
        ("missing.txt", None, "No such file"),
        ("missing.parquet", None, "no such file"),
    ],
)
def test_what_is_refused(tmp_path: Path, name: str, content: bytes | None, words: str) -> None:
    if content is not None:
        (tmp_path / name.partition("#")[0]).write_bytes(content)
    with pytest.raises(UsageError, match=words) as error:
        load_prompts(str(tmp_path / name))
    assert error.value.remedy


def test_a_prompt_of_just_the_limit_is_read(tmp_path: Path) -> None:
    (tmp_path / "long.txt").write_text("a" * LIMIT)
    assert len(load_prompts(str(tmp_path / "long.txt")).texts[0]) == LIMIT


def test_parquet(tmp_path: Path) -> None:
    """Real files, as the hub's converters write them: other columns beside the prompts, several row groups, compressed."""
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    table = pyarrow.table(
        {"id": list(range(3)), "image": [b"\xff\xd8", b"", b"x"], "Prompt": list(WANTED), "short": ["x", "", "y"]}
    )
    path = tmp_path / "train-00000-of-00001.parquet"
    parquet.write_table(table, path, row_group_size=2, compression="snappy")
    assert load_prompts(str(path)).texts == WANTED
    listed = load_prompts(f"{path}#short")
    assert (listed.texts, listed.dropped) == (("x", "y"), (2,))
    with pytest.raises(UsageError, match="bytes at entry 1"):
        load_prompts(f"{path}#image")
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(UsageError, match=r"a parquet table.*download it again") as error:
        load_prompts(str(path))
    assert "\n" not in str(error.value)


def test_parquet_without_pyarrow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "list.parquet").write_bytes(b"PAR1")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(UsageError, match=r"ilf-bench\[data\]"):
        load_prompts(str(tmp_path / "list.parquet"))


def test_markup_and_long_prompts_reach_the_pipeline_as_they_stand(tmp_path: Path) -> None:
    texts = ["<script>alert(1)</script> a cat", "a [link](http://x) & <b>dog</b>", "$(rm -rf) `x`", "w " * 4999 + "w"]
    (tmp_path / "list.txt").write_text("\n".join(texts))
    assert load_prompts(str(tmp_path / "list.txt")).texts == tuple(texts)


def test_a_file_of_a_dataset_on_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def fetch(repository: str, file: str) -> Path:
        asked.append((repository, file))
        (tmp_path / "meta.json").write_text(FILES["meta_data.json"])
        return tmp_path / "meta.json"

    monkeypatch.setattr(prompts, "fetch_dataset_file", fetch)
    assert load_prompts("hub:playgroundai/MJHQ-30K/meta_data.json").texts == WANTED
    assert load_prompts("hub:a/b@main/c/d.json#category").texts == ("x",) * 3
    assert asked == [("playgroundai/MJHQ-30K", "meta_data.json"), ("a/b@main", "c/d.json")]
    with pytest.raises(UsageError, match="hub:OWNER/NAME"):
        load_prompts("hub:parti")


@pytest.fixture
def real_datasets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The package itself, on a folder in the layout of the hub: OWNER/NAME below the present one, where it looks first."""
    datasets = pytest.importorskip("datasets")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    datasets.disable_progress_bars()
    return tmp_path


def test_a_dataset_through_datasets(real_datasets: Path) -> None:
    """DrawBench's layout: one CSV, which becomes the split ``train``."""
    folder = real_datasets / "sayakpaul" / "drawbench"
    folder.mkdir(parents=True)
    (folder / "drawbench.csv").write_text(table(",", "Prompts"))
    assert load_prompts("drawbench").texts == load_prompts("hub:sayakpaul/drawbench").texts == WANTED
    with pytest.raises(UsageError, match=r"'what'.*id, Prompts"):
        load_prompts("hub:sayakpaul/drawbench#what")


def test_splits_of_a_dataset(real_datasets: Path) -> None:
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    folder = real_datasets / "owner" / "captions" / "data"
    folder.mkdir(parents=True)
    for split, texts in (("train", list(WANTED)), ("test", ["x"])):
        parquet.write_table(pyarrow.table({"caption": texts}), folder / f"{split}-00000-of-00001.parquet")
    with pytest.raises(UsageError, match=r"train, test|test, train"):
        load_prompts("hub:owner/captions")
    assert load_prompts("hub:owner/captions@test#caption").texts == ("x",)
    assert load_prompts("hub:owner/captions@train").texts == WANTED


def test_datasets_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise ImportError(name)

    monkeypatch.setattr(prompts, "importlib", SimpleNamespace(import_module=missing))
    with pytest.raises(UsageError, match=r"ilf-bench\[data\]"):
        load_prompts("hub:nateraw/parti-prompts#Prompt")


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("more.csv", b"prompt,id\ncat,1\na dog, running,2\n", "3 fields where the header has 2 at line 3"),
        ("short.csv", b"id,prompt\n1,cat\n2\n", "1 fields where the header has 2 at line 3"),
        ("twice.csv", b"prompt,prompt\ncat,dog\n", "one column 'prompt'"),
        ("open.csv", b'id,prompt\n1,"cat\n2,dog\n', "unexpected end of data"),
        ("quote.csv", b'id,prompt\n1,"cat" and dog\n', "line 2"),
        ("more.tsv", b"prompt\tid\ncat\t1\t2\n", "3 fields where the header has 2 at line 2"),
    ],
)
def test_a_table_that_does_not_fit_is_refused_with_its_line(tmp_path: Path, name: str, content: bytes, words: str) -> None:
    """Read leniently, each of these gives other prompts than its writer meant, and says nothing."""
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UsageError, match=words):
        load_prompts(str(tmp_path / name))


@pytest.mark.parametrize(
    ("name", "content", "ids"),
    [
        ("a.json", '{"x1": "cat", "x2": {"prompt": "dog"}}', ("x1", "x2")),
        ("b.json", '{"annotations": [{"image_id": 5, "id": 1, "caption": "cat"}]}', ("5",)),
        ("c.jsonl", '{"file_name": "a.png", "text": "cat"}\n', ("a.png",)),
        ("d.csv", "Id,prompt\n7,cat\n", ("7",)),
        ("e.txt", "cat\n", ()),
        ("f.csv", "id,prompt\n,cat\n7,dog\n", ()),
    ],
)
def test_what_prompts_belong_to_is_kept(tmp_path: Path, name: str, content: str, ids: tuple[str, ...]) -> None:
    (tmp_path / name).write_text(content)
    assert load_prompts(str(tmp_path / name)).ids == ids


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("list.csv", "prompt,Prompt\na,b\n", "one column 'prompt' .*prompt, Prompt"),
        ("list.json", '{"1": "a", "1": "b"}', "the key '1' twice"),
        ("list.jsonl", '{"prompt": "a", "prompt": "b"}\n', "the key 'prompt' twice.*line 1"),
        ("list.yaml", "- a cat\n- a dog\n", r"the suffix \.yaml; .*name it \.txt"),
        ("list.md", "# Prompts\n", r"the suffix \.md"),
        ("list.txt", '["a cat", "a dog"]\n', r"got JSON; .*name it \.json"),
        ("list.txt", '{"prompt": "a cat"}\n{"prompt": "a dog"}\n', r"got JSON"),
        ("list", '{\n"1": "a cat"}\n', r"got JSON"),
    ],
)
def test_what_would_be_read_as_something_else_is_refused(tmp_path: Path, name: str, content: str, words: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(UsageError, match=words):
        load_prompts(str(tmp_path / name))


def test_lists_by_other_names(tmp_path: Path) -> None:
    for name, content in (("a.ndjson", '"a cat"\n{"prompt": "a dog"}\n'), ("b.lst", "a cat\na dog\n"), ("c", "a cat\r\na dog")):
        (tmp_path / name).write_bytes(content.encode())
        assert load_prompts(str(tmp_path / name)).texts == ("a cat", "a dog")
    (tmp_path / "d.txt").write_text("[a cat] in brackets\n{sic}\n")
    assert load_prompts(str(tmp_path / "d.txt")).texts == ("[a cat] in brackets", "{sic}")


def test_what_became_of_the_entries_is_said(tmp_path: Path) -> None:
    path = tmp_path / "list.txt"
    path.write_text("a\n\nb\n\n")
    record = load_prompts(str(path)).record()
    assert prompt_note(record, 2) == f"prompts of {path}: 2 blank entries were left out (numbers 2, 4)"
    path.write_text("a\nb\nc\n")
    record = load_prompts(str(path)).record()
    assert prompt_note(record, 3) == ""
    assert prompt_note(record, 2) == f"prompts of {path}: the first 2 of 3 prompts were used"
    assert prompt_note(record, 7) == f"prompts of {path}: 3 prompts were used again and again for 7 images"
