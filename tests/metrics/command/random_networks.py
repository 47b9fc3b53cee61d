"""Small random networks in the formats that the scorer environments load, made by an environment's own Python:

    ENVIRONMENT/venv/bin/python tests/metrics/command/random_networks.py geneval FOLDER

Architectures, files and tokenizers are the published ones' kinds; only widths, depths and vocabularies are small.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

WORDS = ["a", "photo", "of", "red", "blue", "cat", "dog", "two", "apple"]
COCO = ["person", "bicycle", "car", "bus", "cat", "dog", "apple", "cup", "chair"]


def byte_vocabulary() -> list[str]:
    """The printable stand-ins of all 256 bytes, as byte-level BPE writes them."""
    shown = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = [byte for byte in range(256) if byte not in shown]
    return [chr(byte) for byte in shown] + [chr(256 + i) for i in range(len(hidden))]


def clip_tokenizer(folder: Path) -> None:
    """A byte-level BPE without merges, in the files of CLIP's."""
    letters = byte_vocabulary()
    pieces = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps({piece: i for i, piece in enumerate(pieces)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    (folder / "tokenizer_config.json").write_text(json.dumps({"model_max_length": 77, "tokenizer_class": "CLIPTokenizer"}))


def clip(folder: Path, side: int = 32, width: int = 32) -> None:
    """A CLIP for images of ``side`` pixels and embeddings of ``width``, with its processor."""
    from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPProcessor, CLIPTokenizer

    clip_tokenizer(folder)
    tokenizer = CLIPTokenizer.from_pretrained(folder)
    size: dict[str, Any] = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    text = {**size, "vocab_size": len(tokenizer), "bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    vision = {**size, "image_size": side, "patch_size": side // 4}
    CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=width)).save_pretrained(folder)
    CLIPProcessor(CLIPImageProcessor(size={"shortest_edge": side}, crop_size=side), tokenizer).save_pretrained(folder)


def mask2former(folder: Path) -> None:
    """A Mask2Former on a Swin, for instances of a few of COCO's classes."""
    from transformers import Mask2FormerConfig, Mask2FormerForUniversalSegmentation, Mask2FormerImageProcessor, SwinConfig

    swin = SwinConfig(
        image_size=64, embed_dim=16, depths=[1, 1, 1, 1], num_heads=[1, 2, 2, 4], window_size=4,
        out_features=["stage1", "stage2", "stage3", "stage4"],
    )  # fmt: skip
    config = Mask2FormerConfig(
        backbone_config=swin, feature_size=32, mask_feature_size=32, hidden_dim=32, encoder_feedforward_dim=32,
        encoder_layers=1, decoder_layers=2, num_attention_heads=2, dim_feedforward=32, num_queries=10,
        id2label=dict(enumerate(COCO)), label2id={name: i for i, name in enumerate(COCO)},
    )  # fmt: skip
    Mask2FormerForUniversalSegmentation(config).save_pretrained(folder)
    Mask2FormerImageProcessor(size={"shortest_edge": 64, "longest_edge": 128}).save_pretrained(folder)


def geneval(folder: Path) -> dict[str, str]:
    """What GenEval's scorer loads, and the variables that name it."""
    mask2former(folder / "detector")
    clip(folder / "clip")
    return {"GENEVAL_DETECTOR": str(folder / "detector"), "GENEVAL_CLIP": str(folder / "clip")}


QWEN_MARKS = ("endoftext", "im_start", "im_end", "vision_start", "vision_end", "image_pad", "video_pad")
QWEN_CHAT = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def qwen2_vl(folder: Path) -> None:
    """A Qwen2-VL of one layer with its processor."""
    from transformers import Qwen2Tokenizer, Qwen2VLConfig, Qwen2VLForConditionalGeneration, Qwen2VLImageProcessor
    from transformers import Qwen2VLProcessor as Processor

    folder.mkdir(parents=True, exist_ok=True)
    marks = [f"<|{mark}|>" for mark in QWEN_MARKS]
    (folder / "vocab.json").write_text(json.dumps({piece: i for i, piece in enumerate(byte_vocabulary())}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    tokenizer = Qwen2Tokenizer(str(folder / "vocab.json"), str(folder / "merges.txt"))
    tokenizer.add_special_tokens({"additional_special_tokens": marks})
    ids = dict(zip(QWEN_MARKS, tokenizer.convert_tokens_to_ids(marks)))  # noqa: B905
    Processor(Qwen2VLImageProcessor(), tokenizer, chat_template=QWEN_CHAT).save_pretrained(folder)
    text = {"vocab_size": len(tokenizer) + 1, "hidden_size": 3584, "intermediate_size": 64, "num_hidden_layers": 1}
    heads = {
        "num_attention_heads": 28,
        "num_key_value_heads": 4,
        "rope_scaling": {"type": "mrope", "mrope_section": [16, 24, 24]},
    }
    vision = {"depth": 1, "embed_dim": 32, "hidden_size": 3584, "num_heads": 2, "mlp_ratio": 2}
    known = {f"{mark}_token_id": ids[mark] for mark in ("image_pad", "video_pad", "vision_start", "vision_end")}
    known = {name.replace("_pad", ""): value for name, value in known.items()}
    config = Qwen2VLConfig(**text, **heads, **known, vision_config=vision)
    Qwen2VLForConditionalGeneration(config).save_pretrained(folder)


def hpsv3(folder: Path) -> dict[str, str]:
    """What HPSv3's own package loads: its configuration with another base model, and a checkpoint of the whole."""
    import hpsv3
    import torch
    import yaml
    from hpsv3.train import create_model_and_processor
    from hpsv3.utils.parser import DataConfig, ModelConfig, PEFTLoraConfig, TrainingConfig, parse_args_with_yaml

    qwen2_vl(folder / "base")
    theirs = Path(hpsv3.__path__[0]) / "config" / "HPSv3_7B.yaml"
    written = {**yaml.safe_load(theirs.read_text()), "model_name_or_path": str(folder / "base")}
    (folder / "config.yaml").write_text(yaml.safe_dump(written))
    kinds = (DataConfig, TrainingConfig, ModelConfig, PEFTLoraConfig)
    (_, training, model, lora), _ = parse_args_with_yaml(kinds, str(folder / "config.yaml"), is_train=False)
    network, _, _ = create_model_and_processor(model_config=model, peft_lora_config=lora, training_args=training)
    torch.save(network.state_dict(), folder / "HPSv3.pth")
    return {"HPSV3_CHECKPOINT": str(folder / "HPSv3.pth"), "HPSV3_CONFIG": str(folder / "config.yaml")}


def flan_t5(folder: Path) -> None:
    """A T5 of FLAN-T5-XXL's width with one layer, and a tokenizer of a few words."""
    from transformers import T5Config, T5ForConditionalGeneration, T5Tokenizer

    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", -20.0), ("\u2581", -10.0), *((f"\u2581{word}", -2.0) for word in WORDS)]
    tokenizer = T5Tokenizer(vocab=pieces, extra_ids=0, model_max_length=512)
    tokenizer.save_pretrained(folder)
    size = {"d_model": 4096, "d_kv": 16, "d_ff": 64, "num_layers": 1, "num_decoder_layers": 1, "num_heads": 2}
    T5ForConditionalGeneration(T5Config(vocab_size=len(tokenizer), decoder_start_token_id=0, **size)).save_pretrained(folder)


def inside(folder: Path) -> None:
    """Go where the hub's names are folders, which transformers and imscore read first."""
    folder.mkdir(parents=True, exist_ok=True)
    os.chdir(folder)


def vqascore(folder: Path) -> dict[str, str]:
    """What imscore's VQAScore loads."""
    from imscore.vqascore.model import VQAScore
    from transformers import CLIPImageProcessor, CLIPVisionConfig, CLIPVisionModel

    inside(folder)
    flan_t5(Path("google/flan-t5-xxl"))
    size = {"hidden_size": 1024, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    CLIPVisionModel(CLIPVisionConfig(**size, image_size=336, patch_size=14)).save_pretrained("openai/clip-vit-large-patch14-336")
    CLIPImageProcessor(size={"shortest_edge": 336}, crop_size=336).save_pretrained("openai/clip-vit-large-patch14-336")
    VQAScore().save_pretrained("RE-N-Y/clip-t5-xxl")
    return {}


def mps(folder: Path) -> dict[str, str]:
    """What imscore's MPS loads."""
    from imscore.mps.model import MPS

    inside(folder)
    clip(Path("laion/CLIP-ViT-H-14-laion2B-s32B-b79K"), side=224, width=1024)
    MPS().save_pretrained("RE-N-Y/mpsv1")
    return {}


def spiece(folder: Path, tokens: int = 300) -> None:
    """The tokenizer of T5 in its original file, a SentencePiece model, here of single bytes and a few words."""
    import sentencepiece

    folder.mkdir(parents=True, exist_ok=True)
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([" ".join(WORDS)] * 10), model_prefix=str(folder / "spiece"), vocab_size=tokens,
        byte_fallback=True, hard_vocab_limit=False, bos_id=-1, pad_id=0, eos_id=1, unk_id=2, minloglevel=2,
    )  # fmt: skip
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "T5Tokenizer", "extra_ids": 0}))


def vqascore_t2v(folder: Path) -> dict[str, str]:
    """What t2v-metrics' CLIP-FlanT5 loads: tokenizer, vision tower, and the whole network."""
    from transformers import AutoTokenizer, CLIPImageProcessor, CLIPVisionConfig, CLIPVisionModel

    sys.path.insert(0, str(Path(sys.executable).parents[2]))  # where the environment keeps the scorer's own modules
    from clip_flant5 import module

    inside(folder)
    tower = "openai/clip-vit-large-patch14-336"
    spiece(Path("google/flan-t5-xxl"))
    tokenizer = AutoTokenizer.from_pretrained("google/flan-t5-xxl", use_fast=False)
    size = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 3, "num_attention_heads": 2}
    CLIPVisionModel(CLIPVisionConfig(**size, image_size=336, patch_size=14)).save_pretrained(tower)
    CLIPImageProcessor(size={"shortest_edge": 336}, crop_size=336).save_pretrained(tower)
    text = {"d_model": 64, "d_kv": 16, "d_ff": 64, "num_layers": 1, "num_decoder_layers": 1, "num_heads": 2}
    sight = {"mm_vision_tower": tower, "mm_vision_select_layer": -2, "mm_projector_type": "mlp2x_gelu", "mm_hidden_size": 32}
    kind = module("clip_t5_model").CLIPT5ForConditionalGeneration
    network = kind(kind.config_class(**text, **sight, vocab_size=len(tokenizer), decoder_start_token_id=0))
    network.save_pretrained("zhiqiulin/clip-flant5-xxl", safe_serialization=False)
    return {}


if __name__ == "__main__":
    import torch

    torch.manual_seed(0)
    print(json.dumps(globals()[sys.argv[1]](Path(sys.argv[2]))))
