"""The family of a lab's own class-to-image pipeline: what a benchmark has to know of its transformer."""

from diffusers import DiTPipeline
from diffusers.models.attention import BasicTransformerBlock

from harness.cost.flops import Geometry
from harness.cost.guidance import Guidance
from harness.cost.macs import BlockCost, Part, attention, linear
from harness.models.families.base import Family, Segment, Usual
from harness.models.families.shapes import TIME_CHANNELS, grid, grid_tokens


class LabPipeline(DiTPipeline):
    """Stands for your pipeline; its folder's model_index.json names this class."""


def block_settings(config, number):
    """What a block is built from, from the transformer's config; ``number`` counts from 1."""
    names = ("num_attention_heads", "attention_head_dim", "num_embeds_ada_norm", "activation_fn", "attention_bias", "norm_type")
    return {name: config[name] for name in names}


def build_block(settings):
    """A fresh block of the backbone's kind, which ILF's feedback module is made of."""
    rest = dict(settings)
    heads, width = rest.pop("num_attention_heads"), rest.pop("attention_head_dim")
    return BasicTransformerBlock(heads * width, heads, width, norm_elementwise_affine=False, **rest)


def modulated(block, state, conditioning):
    """What a block's attention reads, which TeaCache watches."""
    told = conditioning["timestep"], conditioning["class_labels"]
    return block.norm1(state[0], *told, hidden_dtype=state[0].dtype)[0]


def guidance(configs, scale, true_guidance):
    """Both branches are the rows of one call, the conditional one first."""
    return Guidance(scale, "conditional first")


def arguments(pipeline, prompts):
    """What the pipeline is called with, beside steps, noise and size."""
    return {"class_labels": [int(prompt) for prompt in prompts], "guidance_scale": pipeline.guidance.scale}


def conditioning_at(transformer, call, t):
    """The arguments of a block that depend on the time, at other times."""
    return {"timestep": t.to(call.time.dtype)}


def geometry(model):
    """What each block costs in multiply-accumulates, and everything but the blocks; held against torch's counter by a test."""
    config, n, latent = model.transformer, grid_tokens(model), grid(model)
    d = config["num_attention_heads"] * config["attention_head_dim"]
    products = attention(n, n, d)
    parts = (Part("attn1", "attention", 4 * linear(n, d, d) + products), Part("ff", "mlp", 2 * linear(n, d, 4 * d)))
    time = TIME_CHANNELS * d + d * d
    block = BlockCost(parts, time + 6 * d * d, products)
    head = linear(n, d, config["patch_size"] ** 2 * config["out_channels"])
    rest = linear(n, config["patch_size"] ** 2 * latent[0], d) + time + 2 * d * d + head
    return Geometry((block,) * config["num_layers"], d, n, n, 0, 0, latent, rest, head)


FAMILY = Family(
    name="lab",
    title="Lab",
    pipelines=("LabPipeline",),
    task="class",
    segments=(Segment("transformer_blocks", build_block, block_settings, modulated),),
    guidance=guidance,
    arguments=arguments,
    latent=grid,
    geometry=geometry,
    conditioning_at=conditioning_at,
    usual=lambda configs: Usual(20, 1.5),
    any_size=False,
)
