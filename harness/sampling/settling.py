"""What libraries set up on a pipeline's first call, set up beforehand: what a method leaves behind can then be told from it."""

from __future__ import annotations

from typing import Any

from torch import nn


def settle(pipe: Any) -> None:
    """Give the models of a diffusers pipeline the hooks, registries and empty caches that diffusers and transformers would add
    when they are first called. They do nothing by themselves."""
    if hasattr(pipe.vae, "clear_cache"):
        pipe.vae.clear_cache()
    for part in pipe.components.values():
        if isinstance(part, nn.Module):
            if hasattr(part, "cache_context"):
                _register(part)
            for module in part.modules():
                if _captures(type(module)):
                    _capture(module)


def settle_scheduler(scheduler: Any) -> Any:
    """A scheduler with the attribute that some have only once their timesteps are set."""
    if "num_inference_steps" not in vars(scheduler):
        scheduler.num_inference_steps = None
    return scheduler


def _register(model: nn.Module) -> None:
    from diffusers.hooks import HookRegistry

    HookRegistry.check_if_exists_or_initialize(model)


def _captures(kind: type) -> bool:
    """Whether transformers wrapped the forward of this class to record what its layers return."""
    forward: Any = kind.forward  # type: ignore[attr-defined]
    while forward is not None:
        code = getattr(forward, "__code__", None)
        if code is not None and code.co_filename.endswith("output_capturing.py"):
            return True
        forward = getattr(forward, "__wrapped__", None)
    return False


def _capture(model: nn.Module) -> None:
    from transformers.utils.output_capturing import maybe_install_capturing_hooks

    maybe_install_capturing_hooks(model)
