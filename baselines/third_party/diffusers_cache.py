"""The caches that diffusers brings (``diffusers.hooks``), as they are: what they skip is counted, and every hook is removed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import nn

from baselines.magcache import MagCache, measure
from baselines.third_party.guard import Limits, failing_as_not_measured
from harness.cost.plan import Backbone, Plan
from harness.errors import NotMeasured, UsageError
from harness.results import UpfrontCost
from harness.sampling.patching import patched
from harness.training.calibration import calibrate

if TYPE_CHECKING:
    from harness.sampling.pipeline import Pipeline

CALIBRATED = MagCache()  # whose ratios MagCache of diffusers is given
REGISTRY = "_diffusers_hook"  # where diffusers keeps the hooks of a module


@dataclass(frozen=True)
class DiffusersCache:
    """A cache of diffusers: ``first-block``, ``taylorseer``, ``pab``, ``magcache`` or ``fastercache``.

    Options that are not given are the library's. first-block: ``threshold``. taylorseer: ``interval``, ``order``, ``warmup``, and
    ``modules`` that are forecast: the library's ``default`` ones, ``lite``, or ``parts``, attention and MLP of each block as in
    the paper. pab: every how many steps self-attention (``interval``) and cross-attention (``cross``) run between timesteps
    ``low`` and ``high``. magcache: ``threshold``, ``most`` and ``retention``, with the ratios that ours is calibrated to.
    fastercache: every how many steps attention (``interval``) and the null branch (``null``) run.

    What runs is decided by the library, so the predicted cost is an upper bound and the counted one stands.
    """

    hook: Literal["first-block", "taylorseer", "pab", "magcache", "fastercache"]
    threshold: float | None = None
    interval: int | None = None
    cross: int | None = None
    order: int | None = None
    warmup: int | None = None
    modules: Literal["default", "lite", "parts"] | None = None
    most: int | None = None
    retention: float | None = None
    low: int | None = None
    high: int | None = None
    null: int | None = None

    def __post_init__(self) -> None:
        known = HOOKS[self.hook].options
        for name, value in self._given().items():
            if name not in known:
                expected = f"an option of diffusers-cache:{self.hook}: {', '.join(known)}"
                raise UsageError(
                    expected=expected, got=name, remedy=f"for example diffusers-cache:{self.hook}:{next(iter(known))}=..."
                )
            least = 1 if name in ("interval", "cross", "null") else 0
            if not isinstance(value, str) and not value >= least:
                raise UsageError(expected=f"{name} of at least {least}", got=f"{value:g}", remedy="edit the method")

    def _given(self) -> dict[str, Any]:
        values = {field.name: getattr(self, field.name) for field in fields(self)[1:]}
        return {name: value for name, value in values.items() if value is not None}

    @property
    def label(self) -> str:
        """For example ``diffusers-cache(first-block, threshold=0.05)``."""
        given = [f"{name}={value if isinstance(value, str) else format(value, 'g')}" for name, value in self._given().items()]
        return f"diffusers-cache({', '.join([self.hook, *given])})"

    @property
    def settings(self) -> dict[str, Any]:
        """All options of this cache with the library's defaults."""
        return {**HOOKS[self.hook].options, **self._given()}

    @property
    def limits(self) -> Limits:
        """What it needs."""
        return HOOKS[self.hook].limits

    @property
    def takes_one_image(self) -> bool:
        """First Block Cache of diffusers decides for a whole batch."""
        return self.limits.decides_together

    def plan(self, plan: Plan) -> Plan:
        """An upper bound."""
        return self.limits.plan(f"diffusers' {self.hook}", plan)

    def reads(self, plan: Plan) -> list[Path]:
        """MagCache's calibration."""
        return CALIBRATED.reads(plan) if self.hook == "magcache" else []

    def upfront_cost(self, backbone: Backbone) -> UpfrontCost:
        """What MagCache's calibration cost; nothing for the others."""
        return CALIBRATED.upfront_cost(backbone) if self.hook == "magcache" else UpfrontCost(0.0, 0)

    @contextmanager
    def attach(self, pipeline: Pipeline) -> Iterator[None]:
        """Put the library's hooks on the transformer inside the context.

        The hooks are told which guidance branch is called, which the pipelines of some families do not do by themselves, and
        their state is cleared at the first step of a call. Raises :class:`NotMeasured` where the library raises an error, where
        no module of the model gets a hook, and where the hooks skipped nothing though the images have no say.
        """
        import diffusers.hooks

        name = f"diffusers' {self.hook}"
        self.limits.check(name, pipeline)
        hook, transformer = HOOKS[self.hook], pipeline.transformer
        config = hook.config(self.settings, pipeline)
        with _hooks_removed(transformer):
            with failing_as_not_measured(name):
                getattr(diffusers.hooks, hook.apply)(transformer, config)
            tally = _Tally(transformer)
            if not tally.hooks:
                raise NotMeasured(
                    expected=f"modules that {name} knows",
                    got=f"none in a {type(transformer).__name__}: it would silently do nothing",
                    remedy="leave it out, or use the method of ilf-bench",
                )
            with _told(pipeline, self), tally.counting():
                yield
            if self.limits.scheduled:
                tally.check(name)


class _Tally:
    """How often hooked modules were called, and how often they ran."""

    def __init__(self, transformer: nn.Module) -> None:
        self.transformer = transformer
        registries = [vars(m)[REGISTRY] for m in transformer.modules() if m is not transformer and REGISTRY in vars(m)]
        self.hooks = [hook for registry in registries for hook in registry.hooks.values()]
        self.calls = self.ran = 0

    @contextmanager
    def counting(self) -> Iterator[None]:
        """Count inside the context."""
        forward = self.transformer.forward

        def called(*args: Any, **kwargs: Any) -> Any:
            self.calls += 1
            return forward(*args, **kwargs)

        with ExitStack() as stack:
            stack.enter_context(patched(self.transformer, "forward", called))
            for hook in self.hooks:
                stack.enter_context(patched(hook.fn_ref, "original_forward", self._noted(hook.fn_ref.original_forward)))
            yield

    def _noted(self, forward: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            self.ran += 1
            return forward(*args, **kwargs)

        return call

    def check(self, name: str) -> None:
        """Raise :class:`NotMeasured` where everything ran."""
        if self.calls and self.ran >= self.calls * len(self.hooks):
            raise NotMeasured(
                expected=f"work that {name} skips",
                got=f"none in {self.calls} calls of the model",
                remedy="use more steps, or options that skip some of them",
            )


@contextmanager
def _told(pipeline: Pipeline, method: DiffusersCache) -> Iterator[None]:
    """Each call of the transformer is one of the branches that the hooks keep state for, and a failure of theirs is a reason."""
    from diffusers.hooks import HookRegistry
    from diffusers.models.cache_utils import CacheMixin

    transformer, clock, name = pipeline.transformer, pipeline.clock, f"diffusers' {method.hook}"
    forward, registry = transformer.forward, HookRegistry.check_if_exists_or_initialize(transformer)
    registry.invalidate_child_registries_cache()

    def call(*args: Any, **kwargs: Any) -> Any:
        method.limits.check_images(name, pipeline)
        if clock.step == 0 and clock.call == 0:
            registry.reset_stateful_hooks()
        branch = CacheMixin.cache_context(transformer, f"branch {clock.call}")
        with branch, failing_as_not_measured(name):
            return forward(*args, **kwargs)

    with patched(transformer, "forward", call):
        yield


@contextmanager
def _hooks_removed(transformer: nn.Module) -> Iterator[None]:
    """Whatever diffusers' hooks put on the modules of ``transformer`` inside the context is gone behind it."""
    names = ("forward", REGISTRY)
    before = [(module, {name: vars(module)[name] for name in names if name in vars(module)}) for module in transformer.modules()]
    for module, held in before:
        if REGISTRY in held:
            delattr(module, REGISTRY)  # its own is put back as it was
    try:
        yield
    finally:
        for module, held in before:
            for name in names:
                vars(module).pop(name, None)
            vars(module).update(held)


@dataclass(frozen=True)
class _Hook:
    """A cache of diffusers: the function that applies it, its options with their defaults, and its config."""

    apply: str
    options: Mapping[str, Any]
    config: Callable[[Mapping[str, Any], Pipeline], Any]
    limits: Limits


def _check_stream(hook: str, pipeline: Pipeline) -> None:
    """Raise :class:`NotMeasured` where a hook would not find the image's stream among a block's arguments."""
    for segment in pipeline.family.segments:
        if segment.inputs[0] != "hidden_states":
            raise NotMeasured(
                expected=f"blocks that take hidden_states, which diffusers' {hook} looks for",
                got=f"a {pipeline.family.title}, whose blocks call them {segment.inputs[0]}",
                remedy="leave it out",
            )


def _first_block(options: Mapping[str, Any], pipeline: Pipeline) -> Any:
    _check_stream("first-block", pipeline)
    from diffusers.hooks import FirstBlockCacheConfig

    return FirstBlockCacheConfig(threshold=options["threshold"])


def _taylorseer(options: Mapping[str, Any], pipeline: Pipeline) -> Any:
    from diffusers.hooks import TaylorSeerCacheConfig

    modules, transformer = options["modules"], pipeline.transformer
    if modules == "lite" and not hasattr(transformer, "proj_out"):
        raise NotMeasured(
            expected="a last layer proj_out, which diffusers' taylorseer forecasts in its lite mode",
            got=f"none in a {type(transformer).__name__}: its blocks would return zeros, and nothing else",
            remedy="diffusers-cache:taylorseer:modules=parts",
        )
    parts = {"cache_identifiers": _parts(pipeline), "taylor_factors_dtype": getattr(torch, pipeline.dtype)}
    return TaylorSeerCacheConfig(
        cache_interval=options["interval"],
        disable_cache_before_step=options["warmup"],
        max_order=options["order"],
        use_lite_mode=modules == "lite",
        **(parts if modules == "parts" else {}),
    )


def _parts(pipeline: Pipeline) -> list[str]:
    """Patterns of the names of every attention and MLP in the blocks."""
    return sorted({rf"{site.segment.blocks}\.\d+\.{part.name}" for site in pipeline.sites for part, _ in site.parts()})


def _pab(options: Mapping[str, Any], pipeline: Pipeline) -> Any:
    from diffusers.hooks import PyramidAttentionBroadcastConfig

    between = (options["low"], options["high"])
    return PyramidAttentionBroadcastConfig(
        spatial_attention_block_skip_range=options["interval"],
        cross_attention_block_skip_range=options["cross"],
        spatial_attention_timestep_skip_range=between,
        cross_attention_timestep_skip_range=between,
        current_timestep_callback=lambda: pipeline.clock.t,
    )


def _magcache(options: Mapping[str, Any], pipeline: Pipeline) -> Any:
    _check_stream("magcache", pipeline)
    from diffusers.hooks import MagCacheConfig

    known = calibrate(CALIBRATED, pipeline, "magcache", lambda sample: measure(pipeline, sample))
    return MagCacheConfig(
        threshold=options["threshold"],
        max_skip_steps=options["most"],
        retention_ratio=options["retention"],
        num_inference_steps=pipeline.steps,
        mag_ratios=list(known.curves["ratios"]),
    )


def _fastercache(options: Mapping[str, Any], pipeline: Pipeline) -> Any:
    from diffusers.hooks import FasterCacheConfig

    guidance = pipeline.guidance
    if guidance.rows > 1 and guidance.layout != "null first":
        raise NotMeasured(
            expected="a guidance batch whose second half is the conditional one, as diffusers' fastercache assumes",
            got="one whose first half is it",
            remedy="leave it out",
        )
    return FasterCacheConfig(
        spatial_attention_block_skip_range=options["interval"],
        unconditional_batch_skip_range=options["null"],
        attention_weight_callback=lambda module: 0.5,  # the library's own, which it gives with a warning
        tensor_format="BCHW",
        is_guidance_distilled=guidance.rows == 1,
        current_timestep_callback=lambda: pipeline.clock.t,
    )


HOOKS = {
    "first-block": _Hook(
        "apply_first_block_cache", {"threshold": 0.05}, _first_block, Limits(decides_together=True, scheduled=False)
    ),
    "taylorseer": _Hook(
        "apply_taylorseer_cache",
        {"interval": 5, "order": 1, "warmup": 3, "modules": "default"},
        _taylorseer,
        Limits(changes_parts=True),
    ),
    "pab": _Hook(
        "apply_pyramid_attention_broadcast",
        {"interval": 2, "cross": 2, "low": 100, "high": 800},
        _pab,
        Limits(changes_parts=True, mixes_calls=True),
    ),
    "magcache": _Hook("apply_mag_cache", {"threshold": 0.06, "most": 3, "retention": 0.2}, _magcache, Limits()),
    "fastercache": _Hook(
        "apply_faster_cache", {"interval": 2, "null": 5}, _fastercache, Limits(changes_parts=True, mixes_calls=True)
    ),
}
