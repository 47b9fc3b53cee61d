"""All components of a pipeline are checked: what is missing, left over or exchanged is named, never filled in."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import (
    AutoencoderKL,
    DiffusionPipeline,
    FlowMatchEulerDiscreteScheduler,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
)
from safetensors.torch import load_file, save_file
from transformers import (
    CLIPTextConfig,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    T5Config,
    T5EncoderModel,
    T5Tokenizer,
)

from harness.errors import ArtifactError
from harness.models.components import check_tokenizer_files
from harness.models.loading import Located, read_pipeline
from harness.models.reading import CLASSES
from tests.conftest import PROMPTS

WORDS = sorted({word for prompt in PROMPTS for word in prompt.split()})


def clip_tokenizer() -> Any:
    """One that knows letters, and the end of a word."""
    letters = [chr(code) for code in range(97, 123)]
    tokens = [*letters, *(letter + "</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    return CLIPTokenizer(vocab={token: i for i, token in enumerate(tokens)}, merges=[], model_max_length=16)


def save_sd3(folder: Path) -> Path:
    """A random Stable Diffusion 3 with its three text encoders."""
    torch.manual_seed(3)
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", -9.0), ("▁", -9.0), *(("▁" + word, -2.0) for word in WORDS)]
    t5 = T5Tokenizer(vocab=pieces, extra_ids=0, model_max_length=6)
    config = {"hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "projection_dim": 8}
    clip = CLIPTextConfig(vocab_size=54, max_position_embeddings=16, **config)
    vae = AutoencoderKL(block_out_channels=(8,), norm_num_groups=4, latent_channels=4, sample_size=8)
    transformer = SD3Transformer2DModel(
        sample_size=8,
        in_channels=4,
        out_channels=4,
        num_layers=2,
        attention_head_dim=8,
        num_attention_heads=2,
        joint_attention_dim=16,
        caption_projection_dim=16,
        pooled_projection_dim=16,
        pos_embed_max_size=8,
    )
    StableDiffusion3Pipeline(
        transformer=transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(),
        vae=vae,
        text_encoder=CLIPTextModelWithProjection(clip),
        tokenizer=clip_tokenizer(),
        text_encoder_2=CLIPTextModelWithProjection(clip),
        tokenizer_2=clip_tokenizer(),
        text_encoder_3=T5EncoderModel(T5Config(vocab_size=len(t5), d_model=16, d_kv=8, d_ff=32, num_layers=1, num_heads=2)),
        tokenizer_3=t5,
    ).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def models(folders: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {**folders, "sd3": save_sd3(tmp_path_factory.mktemp("sd3") / "sd3")}


@pytest.fixture
def copied(models: dict[str, Path], tmp_path: Path) -> Callable[[str], Path]:
    return lambda name: Path(shutil.copytree(models[name], tmp_path / name))


def read(folder: Path) -> Any:
    return read_pipeline(Located(folder, folder / "transformer"), torch.float32)


def refused(folder: Path, words: str) -> None:
    with pytest.raises(ArtifactError, match=words) as error:
        read(folder)
    assert "\n" not in str(error.value)


def weights_of(part: Path) -> Path:
    return next(part.glob("*.safetensors"))


def edit(file: Path, **changed: Any) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | changed))


@pytest.mark.parametrize("name", ["dit", "pixart", "sd3"])
def test_each_component_is_what_diffusers_loads(models: dict[str, Path], name: str) -> None:
    ours, theirs = read(models[name]), DiffusionPipeline.from_pretrained(models[name])
    for part, component in theirs.components.items():
        if isinstance(component, torch.nn.Module):
            state = ours.components[part].state_dict()
            assert state.keys() == component.state_dict().keys() and not ours.components[part].training
            assert all(torch.equal(tensor, state[key]) for key, tensor in component.state_dict().items())


WEIGHTED = [
    *[("dit", part) for part in ("transformer", "vae")],
    *[("pixart", part) for part in ("transformer", "vae", "text_encoder")],
    *[("sd3", part) for part in ("vae", "text_encoder", "text_encoder_2", "text_encoder_3")],
]


@pytest.mark.parametrize(("name", "part"), WEIGHTED)
def test_no_weight_is_missing_or_left_over(copied: Callable[[str], Path], name: str, part: str) -> None:
    """In any component: else diffusers and transformers go on with random numbers, or with a part of the model."""
    folder = copied(name)
    file = weights_of(folder / part)
    whole = load_file(file)
    key = max(whole, key=lambda one: whole[one].numel())
    save_file({one: tensor for one, tensor in whole.items() if one != key}, file, metadata={"format": "pt"})
    refused(folder, rf"fit their config in .*/{part}; got 1 weights are missing, for example {key}.*download the folder again")
    save_file(whole | {"another.weight": torch.zeros(3)}, file, metadata={"format": "pt"})
    refused(folder, rf"/{part}; got 1 weights that its config has no place for, for example another\.weight")
    save_file(whole | {key: torch.zeros(3)}, file, metadata={"format": "pt"})
    refused(folder, rf"fit their config in .*/{part}; got ")
    file.unlink()
    refused(folder, rf"fit their config in .*/{part}; got ")
    shutil.rmtree(folder / part)
    refused(folder, rf"fit their config in .*/{part}; got no such folder")


def test_a_shard_of_a_text_encoder_is_missing(copied: Callable[[str], Path]) -> None:
    folder = copied("sd3")
    part = folder / "text_encoder_3"
    model = T5EncoderModel.from_pretrained(part)
    weights_of(part).unlink()
    model.save_pretrained(part, max_shard_size=2000)
    read(folder)
    sorted(part.glob("*.safetensors"))[1].unlink()
    refused(folder, "half-downloaded text_encoder_3: model-00002")


def test_fewer_layers_than_the_weights_have(copied: Callable[[str], Path]) -> None:
    for name, part, changed in (
        ("dit", "transformer", {"num_layers": 5}),
        ("pixart", "text_encoder", {"num_layers": 0}),
        ("sd3", "text_encoder_2", {"num_hidden_layers": 1}),
    ):
        folder = copied(name)
        edit(folder / part / "config.json", **changed)
        refused(folder, f"/{part}; got .* weights that its config has no place for")


def test_keys_of_old_diffusers_are_no_fault(copied: Callable[[str], Path]) -> None:
    """A table that PixArt-alpha's weights hold and nobody reads; the VAE's attention by its names of before 2023."""
    folder = copied("pixart")
    file = weights_of(folder / "transformer")
    save_file(load_file(file) | {"caption_projection.y_embedding": torch.zeros(3)}, file, metadata={"format": "pt"})
    old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    attending = AutoencoderKL(block_out_channels=(8,), norm_num_groups=4, latent_channels=4, sample_size=8)
    attending.save_pretrained(folder / "vae")
    file = weights_of(folder / "vae")
    renamed = {}
    for key, tensor in load_file(file).items():
        for new, before in old.items():
            key = key.replace(new, before) if ".attentions." in key else key
        renamed[key] = tensor
    assert renamed.keys() != attending.state_dict().keys()
    save_file(renamed, file, metadata={"format": "pt"})
    found = read(folder).vae.state_dict()
    assert all(torch.equal(tensor, found[key]) for key, tensor in attending.state_dict().items())


TOKENIZERS = [("pixart", "tokenizer"), ("sd3", "tokenizer"), ("sd3", "tokenizer_2"), ("sd3", "tokenizer_3")]


@pytest.mark.parametrize(("name", "part"), TOKENIZERS)
def test_a_tokenizer_without_files(copied: Callable[[str], Path], name: str, part: str) -> None:
    """transformers begins an empty vocabulary, and every prompt becomes the same few tokens."""
    folder = copied(name)
    settings = (folder / part / "tokenizer_config.json").read_bytes()
    (folder / part / "tokenizer_config.json").unlink()
    refused(folder, rf"the files of a .*Tokenizer in .*/{part}: .*; got no tokenizer_config\.json; remedy: restore or download")
    (folder / part / "tokenizer_config.json").write_bytes(settings)
    (folder / part / "tokenizer.json").unlink()
    refused(folder, rf"the files of a .*Tokenizer in .*/{part}: .*; got no (spiece\.model|merges\.txt)")
    shutil.rmtree(folder / part)
    refused(folder, rf"the files of a .*Tokenizer in .*/{part}: ")


@pytest.mark.parametrize(("name", "part"), TOKENIZERS)
def test_a_vocabulary_of_another_size(copied: Callable[[str], Path], name: str, part: str) -> None:
    folder = copied(name)
    encoder = folder / part.replace("tokenizer", "text_encoder")
    file, config = weights_of(encoder), json.loads((encoder / "config.json").read_text())
    whole = load_file(file)
    key = next(key for key in ("shared.weight", "text_model.embeddings.token_embedding.weight") if key in whole)
    for rows, words in ((config["vocab_size"] - 1, "goes up to token"), (2 * config["vocab_size"], "a vocabulary of")):
        table = whole[key].repeat(2, 1)[:rows].contiguous()
        save_file(whole | {key: table}, file, metadata={"format": "pt"})
        edit(encoder / "config.json", vocab_size=rows)
        refused(folder, rf"in .*/{part} the tokenizer of the text encoder beside it; got .*{words} .*{rows} rows")


def test_tokenizers_exchanged_between_encoders(copied: Callable[[str], Path]) -> None:
    folder = copied("sd3")
    for one, other in (("tokenizer", "tokenizer_3"), ("tokenizer_3", "tokenizer")):
        again = Path(shutil.copytree(folder, folder.parent / one))
        shutil.rmtree(again / one)
        shutil.copytree(folder / other, again / one)
        refused(again, f"/{one}")


def test_special_tokens_and_limits_are_the_encoders(copied: Callable[[str], Path]) -> None:
    folder = copied("pixart")
    edit(folder / "text_encoder" / "config.json", eos_token_id=2)
    refused(folder, "/tokenizer .*eos_token_id 1, where the text encoder's is 2")
    folder = copied("sd3")
    edit(folder / "tokenizer" / "tokenizer_config.json", model_max_length=77)
    refused(folder, "/tokenizer .*a limit of 77 tokens, where the text encoder has 16 positions")


@pytest.mark.parametrize("name", ["dit", "pixart", "sd3"])
def test_every_component_stands_in_the_index(copied: Callable[[str], Path], name: str) -> None:
    folder = copied(name)
    file = folder / "model_index.json"
    index = json.loads(file.read_text())
    for part in [key for key, pair in index.items() if isinstance(pair, list) and pair[0]]:
        for changed in ({**index, part: [None, None]}, {key: pair for key, pair in index.items() if key != part}):
            file.write_text(json.dumps(changed))
            refused(folder, rf"a {part} in .*model_index\.json")


def test_settings_of_another_scheduler(copied: Callable[[str], Path]) -> None:
    """diffusers would drop what the class of the index does not know."""
    folder = copied("pixart")
    file = folder / "scheduler" / "scheduler_config.json"
    edit(file, _class_name="EulerDiscreteScheduler")
    refused(folder, r"settings of a DPMSolverMultistepScheduler in .*scheduler_config\.json.*those of a EulerDiscrete")
    file.unlink()
    refused(folder, r"settings of a DPMSolverMultistepScheduler at .*scheduler_config\.json; got no such file")


def test_known_tokenizers_say_which_files_they_need() -> None:
    import transformers

    kinds = [getattr(transformers, name) for name in CLASSES["transformers"] if "Tokenizer" in name]
    assert len(kinds) >= 4
    for kind in kinds:
        assert kind.vocab_files_names["tokenizer_file"] == "tokenizer.json"
        assert len(kind.vocab_files_names) >= 2 or kind is transformers.GemmaTokenizer


def test_a_tokenizer_of_one_file_needs_it(tmp_path: Path) -> None:
    from transformers import GemmaTokenizer

    (tmp_path / "tokenizer_config.json").write_text("{}")
    with pytest.raises(
        ArtifactError, match=r"a GemmaTokenizer in .*: tokenizer_config.json, and tokenizer.json; got no tokenizer.json"
    ):
        check_tokenizer_files(tmp_path, GemmaTokenizer)
    (tmp_path / "tokenizer.json").touch()
    check_tokenizer_files(tmp_path, GemmaTokenizer)


def test_a_damaged_tokenizer_is_named(copied: Callable[[str], Path]) -> None:
    folder = copied("pixart")
    edit(folder / "tokenizer" / "tokenizer_config.json", extra_special_tokens="x")
    refused(folder, r"a T5Tokenizer in .*/tokenizer; got extra_special_tokens")
