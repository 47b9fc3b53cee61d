"""The architectures of the bundled models: true diffusers classes, tiny sizes."""

from __future__ import annotations

from diffusers import AutoencoderKL, DiTTransformer2DModel, PixArtTransformer2DModel, SD3Transformer2DModel

LATENT_CHANNELS = 4
LATENT_SIZE = 8


def build_vae(width: int = 16) -> AutoencoderKL:
    """32x32 RGB to an 8x8 latent of 4 channels."""
    block = "{}EncoderBlock2D"
    return AutoencoderKL(
        in_channels=3,
        out_channels=3,
        down_block_types=tuple(block.format(d) for d in ("Down", "Down", "Down")),
        up_block_types=tuple("UpDecoderBlock2D" for _ in range(3)),
        block_out_channels=(width, 2 * width, 4 * width),
        layers_per_block=1,
        latent_channels=LATENT_CHANNELS,
        norm_num_groups=8,
        sample_size=32,
        mid_block_add_attention=False,
    )


def build_dit(heads: int = 3, head_dim: int = 32, layers: int = 12) -> DiTTransformer2DModel:
    """Class-conditional; the class table keeps ImageNet's 1000 entries because DiTPipeline's null class is 1000."""
    return DiTTransformer2DModel(
        num_attention_heads=heads,
        attention_head_dim=head_dim,
        in_channels=LATENT_CHANNELS,
        out_channels=2 * LATENT_CHANNELS,
        num_layers=layers,
        sample_size=LATENT_SIZE,
        patch_size=2,
        num_embeds_ada_norm=1000,
    )


def build_pixart(caption_width: int = 96, heads: int = 4, head_dim: int = 32, layers: int = 12) -> PixArtTransformer2DModel:
    """Text-conditional: self-attention, cross-attention to the caption, shared time modulation."""
    width = heads * head_dim
    return PixArtTransformer2DModel(
        num_attention_heads=heads,
        attention_head_dim=head_dim,
        in_channels=LATENT_CHANNELS,
        out_channels=2 * LATENT_CHANNELS,
        num_layers=layers,
        cross_attention_dim=width,
        sample_size=LATENT_SIZE,
        patch_size=2,
        caption_channels=caption_width,
        use_additional_conditions=False,
    )


def build_sd3(
    caption_width: int = 96, pooled_width: int = 96, heads: int = 3, head_dim: int = 32, layers: int = 12
) -> SD3Transformer2DModel:
    """Text-conditional, of two streams: image and caption attend to each other, each with weights of its own."""
    return SD3Transformer2DModel(
        sample_size=LATENT_SIZE,
        patch_size=2,
        in_channels=LATENT_CHANNELS,
        out_channels=LATENT_CHANNELS,
        num_layers=layers,
        attention_head_dim=head_dim,
        num_attention_heads=heads,
        joint_attention_dim=caption_width,
        caption_projection_dim=heads * head_dim,
        pooled_projection_dim=pooled_width,
        pos_embed_max_size=LATENT_SIZE,
        qk_norm="rms_norm",
    )
