"""Models from strangers: which classes are made, what their settings may ask for, and one message for whatever else happens.

A pipeline's index names the classes of its parts, and diffusers imports what it names. Settings can ask for code, for another
repository, or for a billion layers. All of that is looked at before a library sees the folder.
"""

from __future__ import annotations

import math
import warnings
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import constants
from safetensors import safe_open

from harness.errors import ArtifactError, HarnessError
from harness.models.checksums import check_sums
from harness.storage.archives import BROKEN, open_archive
from harness.storage.documents import parse_json
from harness.storage.files import open_regular, read_small

INDEX = "model_index.json"
CLASSES = {  # what the parts of a pipeline may be; a new family may need more
    "diffusers": {
        *("DiTTransformer2DModel", "PixArtTransformer2DModel", "Transformer2DModel", "SD3Transformer2DModel"),
        *("FluxTransformer2DModel", "SanaTransformer2DModel", "QwenImageTransformer2DModel", "ZImageTransformer2DModel"),
        *("Flux2Transformer2DModel", "ChromaTransformer2DModel", "AutoencoderKLFlux2"),
        *("AutoencoderKL", "AutoencoderTiny", "AutoencoderDC", "AutoencoderKLQwenImage"),
        *("DDIMScheduler", "DDPMScheduler", "PNDMScheduler", "LCMScheduler", "DEISMultistepScheduler", "HeunDiscreteScheduler"),
        *("DPMSolverMultistepScheduler", "DPMSolverSinglestepScheduler", "UniPCMultistepScheduler", "SASolverScheduler"),
        *("EulerDiscreteScheduler", "EulerAncestralDiscreteScheduler", "LMSDiscreteScheduler", "FlowMatchEulerDiscreteScheduler"),
        *("FlowMatchHeunDiscreteScheduler", "FlowMatchLCMScheduler"),
    },
    "transformers": {
        *("T5EncoderModel", "T5Tokenizer", "T5TokenizerFast", "CLIPTextModel", "CLIPTextModelWithProjection"),
        *("CLIPTokenizer", "CLIPTokenizerFast", "CLIPImageProcessor", "Gemma2Model", "GemmaTokenizer", "GemmaTokenizerFast"),
        *("Qwen2_5_VLForConditionalGeneration", "Qwen2Tokenizer", "Qwen2TokenizerFast", "Qwen3Model", "Qwen3ForCausalLM"),
        *("Mistral3ForConditionalGeneration", "PixtralProcessor", "LlamaTokenizer", "LlamaTokenizerFast"),
    },
}
CODE = {"auto_map", "quantization_config", "custom_pipelines", "trust_remote_code", "base_model_name_or_path"}
LARGEST = 2**24  # of any number in the settings of a part
SMALLER = {  # of these, which a library makes as many objects of, or counts up to
    "num_layers": 1_000,
    "num_decoder_layers": 1_000,
    "num_hidden_layers": 1_000,
    "num_single_layers": 1_000,
    "n_layers": 1_000,
    "n_refiner_layers": 1_000,
    "axes_lens": 65_536,
    "layers_per_block": 100,
    "depth": 1_000,
    "extra_ids": 100_000,
    "num_train_timesteps": 100_000,
}
FREE = {"model_max_length"}  # transformers writes 10^30 where there is no limit
MOST_SECONDS = 1e10  # three centuries
MOST_VALUES = 50_000  # of one list in the settings of a part; a scheduler has 1,000 betas
HEADER_BYTES = 16 * 2**20  # of a safetensors file: 100,000 tensors
VOCABULARY_BYTES = 48 * 2**20  # of a tokenizer.json; Gemma's has 33 MiB
MOST_POSITIONS = 2**27  # numbers in the table of positions that a transformer makes when it is built


@contextmanager
def reading(expected: str, remedy: str) -> Iterator[None]:
    """Whatever a library raises over a file becomes one :class:`ArtifactError`; tight around that library's own work."""
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Detected pickle protocol")  # of a file that torch then refuses
            yield
    except HarnessError:
        raise
    except Exception as error:  # of any type: damaged headers, foreign pickles, missing classes, memory that is not there
        said = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise ArtifactError(expected=expected, got=said, remedy=remedy) from error


@contextmanager
def offline() -> Iterator[None]:
    """Nothing is asked of the hub, whatever a file names."""
    before, constants.HF_HUB_OFFLINE = constants.HF_HUB_OFFLINE, True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


def read_settings(path: Path) -> dict[str, Any]:
    """The JSON object in a file of a model. Raises :class:`ArtifactError` where it is none, or asks for what is never done."""
    try:
        content = parse_json(read_small(path))
        if not isinstance(content, dict):
            raise ValueError(f"a {type(content).__name__} where settings are expected")
        for name, value in _walk(content):
            _check(name, value)
        _check_positions(content)
    except (OSError, ValueError) as error:
        raise ArtifactError(expected=f"settings of a model in {path}", got=str(error), remedy="restore that file") from error
    return content


def _walk(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Every value in nested JSON, with the name of the field that it stands in."""
    yield name, value
    if isinstance(value, Mapping):
        for key, part in value.items():
            yield from _walk(part, key)
    elif isinstance(value, list):
        for part in value:
            yield from _walk(part, name)


def _check(name: str, value: Any) -> None:
    if isinstance(value, list) and len(value) > MOST_VALUES:
        raise ValueError(f"{len(value):,} values of {name}, more than {MOST_VALUES:,}")
    if name in CODE and value:
        raise ValueError(f"{name}, which is never followed")
    if "attn_implementation" in name and isinstance(value, str) and "/" in value:
        raise ValueError(f"{name} from a repository, which is never loaded")
    if name in FREE and isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{name} of {value}")
    most = SMALLER.get(name, LARGEST)
    if isinstance(value, (int, float)) and math.isfinite(value) and name not in FREE and abs(value) > most:
        raise ValueError(f"{name} of {value:g}, more than {most:,}")


def _check_positions(settings: Mapping[str, Any]) -> None:
    """A transformer's table of positions is computed when it is built, whatever its weights are."""
    side = max(_largest(settings.get(name)) for name in ("sample_size", "pos_embed_max_size"))
    patch, heads, width = (_largest(settings.get(n)) for n in ("patch_size", "num_attention_heads", "attention_head_dim"))
    across = side // max(1, patch)
    if across * across * heads * width > MOST_POSITIONS:
        raise ValueError(f"{across} x {across} positions of width {heads * width}")


def _largest(value: object) -> int:
    """The largest whole number in a setting, which may be a list."""
    return max((n for n in (value if isinstance(value, list) else [value]) if isinstance(n, int)), default=0)


def check_index(folder: Path) -> dict[str, Any]:
    """A pipeline's index. Raises :class:`ArtifactError` where a part is of a class that is not on the list."""
    index = read_settings(folder / INDEX)
    for name, value in index.items():
        pair = value if isinstance(value, list) else [value]
        named = isinstance(value, list) or (isinstance(value, str) and not name.startswith("_"))
        if named and pair != [None, None] and not (len(pair) == 2 and pair[1] in CLASSES.get(str(pair[0]), ())):
            raise ArtifactError(
                expected=f"parts of known classes in {folder / INDEX}",
                got=f"{name}: {' '.join(map(str, pair))}",
                remedy="use a pipeline that diffusers and transformers make by themselves",
            )
    return index


def check_part(folder: Path) -> None:
    """What lies in the folder of one part, before a library reads it: digests, settings, and no adapter of another model."""
    check_sums(folder)
    for path in sorted(folder.glob("*.bin")):
        check_torch_file(path)
    for path in sorted(folder.glob("*.safetensors")):
        check_header(path)
    for path in sorted(folder.glob("tokenizer.json")):
        _check_size(path, "a vocabulary", path.stat().st_size, VOCABULARY_BYTES)
    for path in sorted(folder.glob("*.json")):
        if path.name == "adapter_config.json":
            raise ArtifactError(expected=f"a whole model in {folder}", got="an adapter", remedy="remove that file")
        if path.name.endswith("config.json"):
            read_settings(path)


def check_header(path: Path) -> None:
    """Raise :class:`ArtifactError` on a file of safetensors whose header is larger than any model's."""
    with path.open("rb") as file:
        _check_size(path, "a header", int.from_bytes(file.read(8), "little"), HEADER_BYTES)


def _check_size(path: Path, what: str, size: int, most: int) -> None:
    if size > most:
        raise ArtifactError(
            expected=f"{what} of at most {most // 2**20} MiB in {path}", got=f"{size:,} bytes", remedy="restore that file"
        )


def read_seconds(path: Path) -> float:
    """The device-seconds that a record of a training holds, 0 where there is no record."""
    if not path.exists():
        return 0.0
    seconds = read_settings(path).get("seconds")
    if not isinstance(seconds, (int, float)) or isinstance(seconds, bool) or not 0 <= seconds < MOST_SECONDS:
        raise ArtifactError(expected=f"seconds of a training in {path}", got=repr(seconds), remedy="restore that file")
    return float(seconds)


def check_torch_file(path: Path, remedy: str = "restore that file") -> None:
    """Raise :class:`ArtifactError` on a file of torch that is compressed: torch compresses none, and it can be a bomb."""
    try:
        with open_regular(path) as file:
            if not zipfile.is_zipfile(file):
                return  # the older format, which is a stream
        with open_archive(path) as archive:
            if squeezed := [entry.filename for entry in archive.infolist() if entry.compress_type != zipfile.ZIP_STORED]:
                raise ValueError(f"{squeezed[0]} is compressed")
    except (*BROKEN, zlib.error) as error:
        raise ArtifactError(expected=f"a file of torch at {path}", got=str(error), remedy=remedy) from error


def load_tensors(path: Path, remedy: str = "restore that file", **settings: Any) -> Any:
    """Tensors from a file of torch, nothing in which is run as code. Raises :class:`ArtifactError` on any other file."""
    check_torch_file(path, remedy)
    with reading(f"tensors in {path}", remedy):
        return torch.load(path, weights_only=True, **settings)


def load_part(kind: Any, folder: Path, what: str, remedy: str, **settings: Any) -> Any:
    """A model of class ``kind`` (``ModelMixin`` of diffusers) from ``folder``, every weight of it from its safetensors.

    In eval mode, on the CPU, without gradients. It is first built without memory, and its names and shapes are held against the
    files' headers. Raises :class:`ArtifactError` on missing, damaged or foreign weights.
    """
    with reading(f"{what} in {folder}", remedy):
        check_part(folder)
        config = kind.load_config(folder, local_files_only=True)
        with torch.device("meta"):
            built = kind.from_config(config)
        _check_shapes({name: tuple(tensor.shape) for name, tensor in built.state_dict().items()}, stored_shapes(folder))
        with offline():
            loaded = kind.from_pretrained(folder, local_files_only=True, use_safetensors=True, **settings)
        return loaded.eval().requires_grad_(False)


def stored_shapes(folder: Path) -> dict[str, tuple[int, ...]]:
    """Names and shapes of all tensors in a folder's safetensors, from the files' headers."""
    found: dict[str, tuple[int, ...]] = {}
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(str(file), framework="pt") as weights:
            found |= {name: tuple(weights.get_slice(name).get_shape()) for name in weights.keys()}  # noqa: SIM118
    return found


def _check_shapes(wanted: Mapping[str, tuple[int, ...]], stored: Mapping[str, tuple[int, ...]]) -> None:
    if missing := sorted(wanted.keys() - stored.keys()):
        raise ValueError(f"{len(missing)} weights are missing, for example {missing[0]}")
    if wrong := sorted(name for name, shape in wanted.items() if stored[name] != shape):
        raise ValueError(f"{wrong[0]} has shape {list(stored[wrong[0]])} where its settings say {list(wanted[wrong[0]])}")
