"""The names of older transformers and timm that the image-reward package needs, lent to it while it loads.

Written for image-reward 1.5 beside transformers 5 and timm 1. Nothing of this stays in the other packages: the helpers are taken
back after the import, and the methods are set on the package's own classes.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from metrics.published.packages import require

INSTALL = "beside the `metrics` extra: pip install --no-deps image-reward==1.5 fairscale==0.4.13"
ABSENT = object()


def apply_chunking_to_forward(function: Callable[..., Any], chunk_size: int, dim: int, *tensors: torch.Tensor) -> Any:
    """The feed-forward layer in one piece: image-reward's configuration asks for no chunks."""
    if chunk_size:
        raise ValueError(f"expected chunk_size_feed_forward 0; got {chunk_size}; remedy: use image-reward's own med_config.json")
    return function(*tensors)


def _no_pruning(*_: object) -> Any:
    raise ValueError("image-reward prunes no attention heads")


def _invert_attention_mask(self: Any, mask: torch.Tensor) -> torch.Tensor:
    """0 where the mask is 1, and the most negative number where it is 0; [B, 1, 1, L]."""
    return (1.0 - mask[:, None, None, :].to(self.dtype)) * torch.finfo(self.dtype).min


def _get_head_mask(self: Any, head_mask: None, layers: int) -> list[None]:
    return [None] * layers


@contextmanager
def lent(module: ModuleType, **names: object) -> Iterator[None]:
    """Attributes that a module lacks, inside the context only."""
    before = {name: getattr(module, name, ABSENT) for name in names}
    for name, value in names.items():
        if before[name] is ABSENT:
            setattr(module, name, value)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is ABSENT:
                delattr(module, name)


def package() -> ModuleType:
    """image-reward's package, imported beside current transformers."""
    if "ImageReward" not in sys.modules:
        modeling = require("transformers.modeling_utils", "transformers")
        helpers = {
            "apply_chunking_to_forward": apply_chunking_to_forward,
            "find_pruneable_heads_and_indices": _no_pruning,
            "prune_linear_layer": _no_pruning,
        }
        with lent(modeling, **helpers):
            require("ImageReward", "image-reward", INSTALL)
        bert: Any = sys.modules["ImageReward.models.BLIP.med"]
        bert.BertPreTrainedModel.invert_attention_mask = _invert_attention_mask
        bert.BertPreTrainedModel.get_head_mask = _get_head_mask
        bert.BertPreTrainedModel.all_tied_weights_keys = {}
    return sys.modules["ImageReward"]


def tokenizer_of(folder: Path | None) -> Any:
    """BERT's tokenizer with image-reward's two extra tokens, from ``vocab.txt`` in a folder or from the hub."""
    from transformers import BertTokenizer

    found: Any = BertTokenizer.from_pretrained("bert-base-uncased" if folder is None else str(folder))
    found.add_special_tokens({"bos_token": "[DEC]", "additional_special_tokens": ["[ENC]"]})
    found.enc_token_id = found.convert_tokens_to_ids("[ENC]")
    return found


@contextmanager
def own_tokenizer(folder: Path | None) -> Iterator[None]:
    """The package builds its model with :func:`tokenizer_of` inside the context: its own one needs older transformers."""
    package()
    module: Any = sys.modules["ImageReward.models.BLIP.blip_pretrain"]
    before, module.init_tokenizer = module.init_tokenizer, lambda: tokenizer_of(folder)
    try:
        yield
    finally:
        module.init_tokenizer = before
