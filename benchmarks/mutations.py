"""Inputs of five kinds and how each can be changed: damaged, or readable and wrong. ``mutate_inputs`` says how each must end.

A mutation is a function of a random source and of the folder that holds a fresh copy of the input. It changes one thing, and
returns what it did and the names that a message about it may use.
"""

from __future__ import annotations

import csv
import io
import json
import random
import shutil
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from safetensors.torch import load_file, save_file

from harness.paths import ROOT
from harness.storage.files import write_bytes

PAIRS = {str(100 + i): text for i, text in enumerate(("a red bird", "a blue fish", "a green tree", "a cat", "a dog", "a sun"))}
JUNK = (
    "notes.txt",
    "__MACOSX/._100.png",
    "._100.png",
    "Thumbs.db",
    "folder.png/x.png",
    "@eaDir/100.png",
    ".hidden/100.png",
    "a.gif",
)
PARTS = ("scheduler", "tokenizer", "text_encoder", "transformer", "vae")
HELPER = "FIRST, LAST = 0.2, 0.8\n"


@dataclass(frozen=True)
class Change:
    """What was done, and the names that a message about it may use; ``readable``: a library reads it as if nothing were wrong."""

    what: str
    names: tuple[str, ...]
    readable: bool = False


Mutation = Callable[[random.Random, Path], Change]


def damage(rng: random.Random, path: Path) -> Change:
    """Cut, overwritten or removed."""
    content, how = bytearray(path.read_bytes()), rng.choice(("cut", "flipped", "emptied", "removed", "replaced"))
    if how == "removed":
        path.unlink()
        return Change(f"{path.name} removed", (path.name, path.parent.name))
    place = rng.randrange(max(1, len(content)))
    if how == "cut":
        del content[place:]
    elif how == "flipped":
        content[place : place + 1] = bytes([content[place] ^ (1 << rng.randrange(8))]) if content else b"x"
    else:
        content = bytearray() if how == "emptied" else bytearray(rng.randbytes(200))
    path.write_bytes(content)
    return Change(f"{path.name} {how}", (path.name, path.parent.name))


# folders of images, with a JSON of captions by id


def make_folder(folder: Path) -> None:
    """Six images of noise named after the ids of captions.json."""
    (folder / "images").mkdir(parents=True)
    for i, name in enumerate(PAIRS):
        pixels = np.random.default_rng(i).integers(0, 256, (32, 32, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / "images" / f"{name}.png")
    (folder / "captions.json").write_text(json.dumps(PAIRS), encoding="utf-8")


def change_folder(rng: random.Random, folder: Path) -> Change:
    """Something beside the images, an image in another form, or one too few or too many."""
    images = folder / "images"
    victim = images / f"{rng.choice(list(PAIRS))}.png"
    how = rng.randrange(8)
    if how == 0:
        return damage(rng, victim)
    if how in (1, 2):
        name = rng.choice(JUNK)
        (images / name).parent.mkdir(exist_ok=True, parents=True)
        write_bytes(images / name, rng.choice((victim.read_bytes(), b"x")))
        return Change(f"{name} beside the images", (name, name.split("/")[0]), readable=True)
    if how == 3:
        name = rng.choice(("7.png", "sub/8.png", "grid.png", f"{victim.stem}_1.png"))
        (images / name).parent.mkdir(exist_ok=True)
        shutil.copyfile(victim, images / name)
        return Change(f"{name} added", (name, Path(name).name), readable=True)
    if how == 4:
        victim.rename(victim.with_suffix(rng.choice((".PNG", ".Png"))))
        return Change("an upper-case suffix", (victim.stem,), readable=True)
    image = Image.open(victim)
    if how == 5:
        image.resize((33, 32)).save(victim)
        return Change(f"{victim.name} of another size", (victim.name,), readable=True)
    if how == 6:
        alpha = image.convert("RGBA")
        if rng.random() < 0.5:
            alpha.putpixel((3, 3), (0, 0, 0, 100))
        alpha.save(victim)
        return Change(f"{victim.name} with an alpha channel", (victim.name,), readable=True)
    image.save(victim, rng.choice(("BMP", "WEBP", "GIF")), lossless=True)
    return Change(f"{victim.name} in another format", (victim.name,), readable=True)


# prompt lists


def make_list(folder: Path) -> None:
    """The same captions in four formats."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, sign in (("list.csv", ","), ("list.tsv", "\t")):
        buffer = io.StringIO()
        csv.writer(buffer, delimiter=sign, lineterminator="\n").writerows(
            [("id", "prompt", "note"), *((k, v, "x") for k, v in PAIRS.items())]
        )
        (folder / name).write_text(buffer.getvalue(), encoding="utf-8")
    (folder / "list.json").write_text(json.dumps(PAIRS), encoding="utf-8")
    (folder / "list.jsonl").write_text(
        "".join(json.dumps({"id": k, "prompt": v}) + "\n" for k, v in PAIRS.items()), encoding="utf-8"
    )
    (folder / "list.txt").write_text("".join(f"{v}\n" for v in PAIRS.values()), encoding="utf-8")


ENCODINGS: Mapping[str, Callable[[str], bytes]] = {
    "a byte-order mark": lambda text: text.encode("utf-8-sig"),
    "UTF-16": lambda text: text.encode("utf-16"),
    "UTF-16 without a mark": lambda text: text.encode("utf-16-le"),
    "Windows line ends": lambda text: text.replace("\n", "\r\n").encode(),
    "blank lines": lambda text: text.replace("\n", "\n\n", 2).encode(),
    "a zero byte": lambda text: text.replace("cat", "c\x00t").encode(),
    "an unbalanced quote": lambda text: text.replace("a cat", '"a cat').encode(),
    "a field too many": lambda text: text.replace("a cat", "a cat,b\tc").encode(),
    "a field too few": lambda text: text.replace(",x\n", "\n", 1).replace("\tx\n", "\n", 1).encode(),
    "two columns of one name": lambda text: text.replace("note", "Prompt").encode(),
    "a key twice": lambda text: text.replace('"101"', '"100"').replace('"id": "101"', '"id": "101", "id": "100"').encode(),
}


def change_list(rng: random.Random, folder: Path) -> Change:
    """Another encoding, rows exchanged, edited, doubled or gone, or damage."""
    path = folder / rng.choice(("list.csv", "list.tsv", "list.json", "list.jsonl", "list.txt"))
    for beside in set(folder.glob("list.*")) - {path}:
        beside.unlink()
    how = rng.randrange(4)
    if how == 0:
        return damage(rng, path)
    if how in (1, 2):
        name = rng.choice(list(ENCODINGS))
        path.write_bytes(ENCODINGS[name](path.read_text(encoding="utf-8")))
        return Change(f"{path.name}: {name}", (path.name,), readable=True)
    separator = ", " if path.suffix == ".json" else "\n"
    text = (
        path.read_text(encoding="utf-8").strip("{}\n")
        if path.suffix == ".json"
        else path.read_text(encoding="utf-8").rstrip("\n")
    )
    rows = text.split(separator)
    begin = 1 if path.suffix in (".csv", ".tsv") else 0
    one, other = rng.sample(range(begin, len(rows)), 2)
    what = rng.choice(("exchanged", "edited", "doubled", "removed"))
    if what == "exchanged":
        rows[one], rows[other] = rows[other], rows[one]
    elif what == "edited":
        rows[one] = rows[one].replace("a ", "the ", 1)
    elif what == "doubled":
        rows.insert(one, rows[one])
    else:
        del rows[one]
    joined = separator.join(rows)
    path.write_text("{" + joined + "}" if path.suffix == ".json" else joined + "\n", encoding="utf-8")
    return Change(f"{path.name}: rows {what}", (path.name,), readable=True)


# pipeline folders


def make_pipeline(folder: Path) -> None:
    """The bundled PixArt, without its methods; sealed as it is."""
    base = ROOT / "zoo" / "tiny-pixart"
    for part in PARTS:
        shutil.copytree(base / part, folder / part)
    for name in ("model_index.json", "SHA256SUMS"):
        shutil.copyfile(base / name, folder / name)


def change_pipeline(rng: random.Random, folder: Path) -> Change:
    """In two of three cases the digests go first, as in a folder that nobody sealed."""
    sealed = rng.random() < 1 / 3
    for sums in () if sealed else list(folder.rglob("SHA256SUMS")):
        sums.unlink()
    change = rng.choice((_any_file, _settings, _settings, _rows, _words, _weights))(rng, folder)
    return Change(f"{'sealed' if sealed else 'unsealed'}: {change.what}", change.names, change.readable)


def _any_file(rng: random.Random, folder: Path) -> Change:
    return damage(rng, rng.choice(sorted(path for path in folder.rglob("*") if path.is_file())))


def _settings(rng: random.Random, folder: Path) -> Change:
    """A value of a configuration that is another one of its kind, or gone."""
    path = rng.choice(sorted(folder.glob("*/*config.json")))
    content = json.loads(path.read_text(encoding="utf-8"))
    key = rng.choice(sorted(content))
    value = content[key]
    if rng.random() < 0.25:
        del content[key]
    elif isinstance(value, bool):
        content[key] = not value
    elif isinstance(value, int | float):
        content[key] = rng.choice((value * 2, value + 1, value / 2))
    else:
        content[key] = rng.choice(("v_prediction", "scaled_linear", "relu", "</s>", None, 3))
    path.write_text(json.dumps(content), encoding="utf-8")
    return Change(f"{path.parent.name}/{path.name}: {key} {value!r} -> {content.get(key, 'gone')!r}", _names(path), readable=True)


def _names(path: Path) -> tuple[str, ...]:
    """The file, and the components that it must agree with."""
    beside = {"tokenizer": "text_encoder", "text_encoder": "tokenizer", "vae": "transformer"}
    return path.name, path.parent.name, beside.get(path.parent.name, path.parent.name)


def _weight_file(rng: random.Random, folder: Path) -> Path:
    return rng.choice(sorted(folder.rglob("*.safetensors")))


def _rows(rng: random.Random, folder: Path) -> Change:
    """Two rows of a matrix exchanged."""
    path = _weight_file(rng, folder)
    tensors = load_file(path)
    name = rng.choice(sorted(key for key, tensor in tensors.items() if tensor.ndim >= 2 and len(tensor) >= 2))
    changed = tensors[name].clone()
    changed[[0, 1]] = changed[[1, 0]]
    save_file(tensors | {name: changed}, path, metadata={"format": "pt"})
    return Change(f"{path.parent.name}: rows of {name} exchanged", _names(path), readable=True)


def _words(rng: random.Random, folder: Path) -> Change:
    """Two words of the vocabulary exchanged, or as many of another one."""
    path = folder / "tokenizer" / "tokenizer.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    words: list[list[Any]] = content["model"]["vocab"]
    if rng.random() < 0.5:
        one, other = rng.sample(range(4, len(words)), 2)
        words[one], words[other] = words[other], words[one]
    else:
        words[4:] = [[f"▁word{i}", score] for i, (_, score) in enumerate(words[4:])]
    path.write_text(json.dumps(content), encoding="utf-8")
    return Change("another vocabulary of the same size", _names(path), readable=True)


def _weights(rng: random.Random, folder: Path) -> Change:
    """Keys or whole files that belong to something else."""
    path = _weight_file(rng, folder)
    tensors, how = load_file(path), rng.randrange(3)
    key = rng.choice(sorted(tensors))
    if how == 0:
        save_file({name: tensor for name, tensor in tensors.items() if name != key}, path, metadata={"format": "pt"})
    elif how == 1:
        save_file(tensors | {f"{key}_old": tensors[key].clone()}, path, metadata={"format": "pt"})
    else:
        other = rng.choice(sorted(set(folder.rglob("*.safetensors")) - {path}))
        shutil.copyfile(other, path)
    return Change(
        f"{path.parent.name}: weights {('missing', 'left over', 'of another component')[how]}", _names(path), readable=True
    )


# plugins


def make_plugin(folder: Path) -> None:
    """The page's example, with its defaults in a file beside it; both names are the folder's own."""
    folder.mkdir(parents=True, exist_ok=True)
    helper = f"settings_of_{folder.parent.name.replace('-', '_')}"
    source = (ROOT / "docs" / "examples" / "limited_guidance.py").read_text(encoding="utf-8")
    source = source.replace("from ilf_bench import", f"from {helper} import FIRST, LAST\nfrom ilf_bench import")
    (folder / "mine.py").write_text(
        source.replace("first: float = 0.2", "first: float = FIRST").replace("= 0.8", "= LAST"), encoding="utf-8"
    )
    (folder / f"{helper}.py").write_text(HELPER, encoding="utf-8")


EDITS = (
    ("FIRST, LAST = 0.2, 0.8", "FIRST, LAST = 0.4, 0.6"),
    ("FIRST, LAST = 0.2, 0.8", "FIRST, LAST = 0.8, 0.2"),
    ("FIRST, LAST = 0.2, 0.8", "LAST = 0.8"),
    ("branches=1", "branches=2"),
    ("step not in inside", "step in inside"),
    ("def label(", "def title("),
    ("METHODS =", "METHOD ="),
    ('"limited-guidance"', '"limited guidance"'),
    ("@dataclass(frozen=True)", ""),
    ("yield", "pass"),
    ("round(", "int("),
    ("import", "# a comment\nimport"),
)


def change_plugin(rng: random.Random, folder: Path) -> Change:
    """Damage to either file, or an edit as a user makes it."""
    path = rng.choice(sorted(folder.glob("*.py")))
    if rng.random() < 0.4:
        return damage(rng, path)
    names = (*(file.name for file in folder.glob("*.py")), "guidance(")
    old, new = rng.choice(
        [edit for edit in EDITS if any(edit[0] in file.read_text(encoding="utf-8") for file in folder.glob("*.py"))]
    )
    for file in folder.glob("*.py"):
        file.write_text(file.read_text(encoding="utf-8").replace(old, new, 1), encoding="utf-8")
    return Change(f"{old!r} -> {new!r}", names, readable=True)


# archives: a bundle of a run, and reference features


def change_archive(rng: random.Random, folder: Path) -> Change:
    """Damage, or members exchanged, left out, added or doubled."""
    path = rng.choice(sorted(path for path in folder.iterdir() if path.suffix in (".zip", ".npz")))
    for beside in set(folder.iterdir()) - {path}:
        beside.unlink()
    if rng.random() < 0.4:
        return damage(rng, path)
    with zipfile.ZipFile(path) as archive:
        members = [(name, archive.read(name)) for name in archive.namelist()]
    how = rng.choice(("exchanged", "left out", "added", "stored", "in another order", "edited"))
    one, other = rng.sample(range(len(members)), 2)
    if how == "exchanged":
        members[one], members[other] = (members[one][0], members[other][1]), (members[other][0], members[one][1])
    elif how == "left out":
        del members[one]
    elif how == "added":
        members.append((rng.choice(("x.json", "notes.txt", "samples/x.png")), b"{}"))
    elif how == "in another order":
        members[one], members[other] = members[other], members[one]
    elif how == "edited":
        name, content = members[one]
        place = rng.randrange(max(1, len(content) - 1))
        members[one] = name, content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED if how == "stored" else zipfile.ZIP_DEFLATED) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return Change(f"{path.name}: members {how}", (path.name, members[min(one, len(members) - 1)][0]), readable=True)
