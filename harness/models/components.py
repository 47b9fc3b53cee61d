"""The components of a pipeline's folder: each is there, each weight comes from a file, and no weight of a file is left over.

diffusers and transformers fill what is missing with random numbers, leave out what does not fit and begin an empty vocabulary
where a tokenizer has lost its files, each with a warning. Here each of these is an error that names the file.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers

from harness.errors import ArtifactError
from harness.models.reading import INDEX, check_index, check_part, read_settings, reading
from harness.storage.documents import parse_json
from harness.storage.files import read_small

WEIGHTED = ("transformer", "vae", "text_encoder")  # how the names of components with weights begin
LIBRARIES = {"diffusers": diffusers, "transformers": transformers}
TOKENIZER_FILE = "tokenizer.json"  # alone it holds the whole vocabulary
TOKENIZER_SETTINGS = "tokenizer_config.json"  # the longest text, and which tokens begin, end and fill one
PROCESSORS = {"PixtralProcessor"}  # of texts and images: prompts need only its tokenizer, and the processor needs torchvision
RESERVE = 0.1  # of a text encoder's rows that its tokenizer need not use: T5 has 32,128 for 32,100 tokens
# a table for captions that diffusers kept beside PixArt-alpha's weights up to 0.24, and never read
UNUSED = {"caption_projection.y_embedding"}


def weighted_components(folder: Path) -> dict[str, Any]:
    """The components that have weights, by name, and the class that the pipeline's index names for each."""
    index = {name: pair for name, pair in check_index(folder).items() if isinstance(pair, list) and pair[0]}
    return {name: _class(*pair) for name, pair in index.items() if name.startswith(WEIGHTED)}


def other_components(folder: Path) -> dict[str, Any]:
    """The components without weights, by name, and their classes."""
    index = {name: pair for name, pair in check_index(folder).items() if isinstance(pair, list) and pair[0]}
    return {name: _class(*pair) for name, pair in index.items() if not name.startswith(WEIGHTED)}


def tokenizers(folder: Path) -> dict[str, Any]:
    """The tokenizers, by name, and their classes."""
    return {name: kind for name, kind in other_components(folder).items() if "Tokenizer" in kind.__name__}


def _class(library: str, name: str) -> Any:
    return transformers.AutoTokenizer if name in PROCESSORS else getattr(LIBRARIES[library], name)


def check_present(folder: Path) -> None:
    """Raise :class:`ArtifactError` where the index lacks a component that its pipeline needs, a component has no folder, its
    settings are of another class, or a tokenizer lacks files. Needs no weights."""
    index, elsewhere = check_index(folder), {"transformer", *tokenizers(folder)}  # what has checks of its own
    for name in needed(getattr(diffusers, index["_class_name"])):
        if not isinstance(index.get(name), list) or index[name] == [None, None]:
            raise ArtifactError(
                expected=f"a {name} in {folder / INDEX}, as a {index['_class_name']} needs",
                got="none" if index.get(name) in (None, [None, None]) else repr(index[name]),
                remedy="restore that file; a pipeline that was saved without it cannot be measured",
            )
        if name not in elsewhere and not (folder / name).is_dir():
            raise ArtifactError(
                expected=f"intact weights that fit their config in {folder / name}",
                got="no such folder",
                remedy="restore or download the folder again",
            )
        _check_class(folder, name, str(index[name][1]))
    for name, kind in tokenizers(folder).items():
        check_tokenizer_files(folder / name, kind)


def needed(pipeline: type) -> list[str]:
    """The components without which a pipeline's class cannot be made."""
    parameters = inspect.signature(pipeline.__init__).parameters.values()  # type: ignore[misc]
    return [one.name for one in list(parameters)[1:] if one.default is inspect.Parameter.empty]


def _check_class(folder: Path, name: str, kind: str) -> None:
    """A scheduler's settings name its class: diffusers drops whatever another class does not know of them."""
    file = folder / name / "scheduler_config.json"
    if not name.startswith("scheduler"):
        return
    if not file.exists():
        raise ArtifactError(expected=f"settings of a {kind} at {file}", got="no such file", remedy=f"restore {file.parent}")
    found = read_settings(file).get("_class_name", kind)
    if found != kind:
        raise ArtifactError(
            expected=f"settings of a {kind} in {file}, which {folder / INDEX} names",
            got=f"those of a {found}",
            remedy="restore the one of both files that was changed",
        )


def check_tokenizer_files(folder: Path, kind: Any) -> None:
    """Raise :class:`ArtifactError` where a tokenizer's vocabulary or settings are missing: it would read every text alike."""
    slow = sorted({name for name in getattr(kind, "vocab_files_names", {}).values() if name != TOKENIZER_FILE})
    present = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    missing = [] if TOKENIZER_FILE in present else [name for name in slow or [TOKENIZER_FILE] if name not in present]
    missing += [] if TOKENIZER_SETTINGS in present else [TOKENIZER_SETTINGS]
    if missing:
        raise ArtifactError(
            expected=f"the files of a {kind.__name__} in {folder}: {TOKENIZER_SETTINGS}, and {TOKENIZER_FILE}"
            + (f" or {' with '.join(slow)}" if slow else ""),
            got=f"no {missing[0]}",
            remedy=f"restore or download {folder} again",
        )


def load_weighted(kind: Any, folder: Path, dtype: torch.dtype) -> Any:
    """A component of class ``kind`` from ``folder``, on the CPU, every weight of it from the files and no other weight in them.

    Raises :class:`ArtifactError` on missing, superfluous, damaged and foreign weights.
    """
    with reading(f"intact weights that fit their config in {folder}", "restore or download the folder again"):
        if not folder.is_dir():
            raise ValueError("no such folder")
        _check_files(folder)
        safe = True if list(folder.glob("*.safetensors")) else None
        told = {"dtype": dtype, "local_files_only": True, "use_safetensors": safe, "output_loading_info": True}
        model, info = kind.from_pretrained(str(folder), **told)
        _check_loaded(info)
    return model


def _check_loaded(info: Mapping[str, Any]) -> None:
    missing, unexpected = sorted(info["missing_keys"]), sorted(set(info["unexpected_keys"]) - UNUSED)
    mismatched = sorted(str(key[0] if isinstance(key, tuple) else key) for key in info["mismatched_keys"])
    if missing:
        raise ValueError(f"{len(missing)} weights are missing, for example {missing[0]}")
    if unexpected:
        raise ValueError(f"{len(unexpected)} weights that its config has no place for, for example {unexpected[0]}")
    if mismatched:
        raise ValueError(f"{len(mismatched)} weights of another shape than its config says, for example {mismatched[0]}")


def _check_files(folder: Path) -> None:
    """Whether every shard that an index names is there, no download was cut, and nothing differs from the folder's digests."""
    check_part(folder)
    cut = [path.name for path in folder.glob("*.incomplete")]
    for index in folder.glob("*.index.json"):
        wanted = set(parse_json(read_small(index))["weight_map"].values())
        kind = Path(next(iter(wanted), "")).suffix
        present = {path.name for path in folder.glob("*" + kind) if path.exists()}
        if present or kind == ".safetensors":  # an index of .bin files beside safetensors is of no concern
            cut += sorted(wanted - present)
    if cut:
        raise ValueError(f"a half-downloaded {folder.name}: {cut[0]} is not whole, and {len(cut) - 1} more")


def assemble(folder: Path, models: Mapping[str, Any]) -> Any:
    """The pipeline of a folder from its ``models``, its other components read. Raises :class:`ArtifactError` on damaged ones."""
    index, made = check_index(folder), dict(models)
    for name, kind in other_components(folder).items():
        with reading(f"a {kind.__name__} in {folder / name}", "restore or download the folder again"):
            made[name] = kind.from_pretrained(folder / name, local_files_only=True)
    kind = getattr(diffusers, index["_class_name"])
    known = inspect.signature(kind.__init__).parameters.keys() & index.keys() - made.keys()
    settings = {name: None if index[name] == [None, None] else index[name] for name in known}
    with reading(f"the components of a {kind.__name__} in {folder}", "restore or download the folder again"):
        return kind(**made, **settings)


def check_tokenizers(pipe: Any, folder: Path) -> None:
    """Raise :class:`ArtifactError` where a loaded tokenizer is not its text encoder's."""
    for name in (name for name in pipe.components if name.startswith("tokenizer")):
        tokenizer = pipe.components[name]
        encoder = pipe.components.get(name.replace("tokenizer", "text_encoder"))
        if tokenizer is None or encoder is None:
            continue
        wrong = _misfit(tokenizer, encoder.config)
        if wrong:
            raise ArtifactError(
                expected=f"in {folder / name} the tokenizer of the text encoder beside it",
                got=wrong,
                remedy=f"restore {folder / name} and the text encoder's config.json from one model",
            )


def table_of_positions(config: Any) -> int:
    """How many positions a text encoder has learned; 0 where it rotates by them, or is told only distances."""
    told = config.get_text_config()
    rotates = getattr(told, "rope_parameters", None) is not None
    return 0 if rotates else int(getattr(told, "max_position_embeddings", None) or 0)


def _misfit(tokenizer: Any, config: Any) -> str:
    """In words, what of a tokenizer does not fit the settings of its text encoder."""
    highest, rows = max(tokenizer.get_vocab().values(), default=-1), int(config.get_text_config().vocab_size)
    if highest >= rows:
        return f"a vocabulary that goes up to token {highest:,}, where the text encoder has {rows:,} rows"
    if highest + 1 < rows * (1 - RESERVE):
        return f"a vocabulary of {highest + 1:,} tokens, where the text encoder has {rows:,} rows"
    positions = table_of_positions(config)
    if positions and tokenizer.model_max_length > positions:
        return f"a limit of {tokenizer.model_max_length:g} tokens, where the text encoder has {positions} positions"
    if config.model_type != "t5":  # settings of CLIP's end and padding tokens were published wrong, and are not used
        return ""
    for role in ("eos_token_id", "pad_token_id"):
        theirs, ours = getattr(config, role, None), getattr(tokenizer, role)
        if theirs is not None and theirs != ours:
            return f"{role} {ours}, where the text encoder's is {theirs}"
    return ""
