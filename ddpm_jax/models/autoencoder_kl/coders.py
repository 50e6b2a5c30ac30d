"""The encoder and the decoder: a UNet's two halves, without skips, embedding or context."""

from flax import linen as nn

from ddpm_jax.models.layers.config import LayerConfig
from ddpm_jax.models.layers.plain import Image, Output
from ddpm_jax.models.layers.unet_blocks import (
    DownBlock,
    MidBlock,
    UpBlock,
    begin,
    end,
    make_attention,
)


class Encoder(nn.Module):
    """From images to the parameters of a distribution, at a size halved between the widths."""

    config: LayerConfig
    widths: tuple[int, ...]
    layers: int
    features: int
    """Channels of the output."""

    @nn.compact
    def __call__(self, x: Image) -> Output:
        """Maps images; an odd size is halved to the smaller one."""
        config, last = self.config, len(self.widths) - 1
        h = begin(config, x, self.widths[0])
        for i, width in enumerate(self.widths):
            resampler = None if i == last else "conv"
            block = DownBlock(
                config, width, self.layers, None, resampler, 0, name=f"down_blocks.{i}"
            )
            h, _ = block(h)
        h = _middle(config)(h)
        return end(config, h, self.features, nn.silu)  # whatever the blocks' activation


class Decoder(nn.Module):
    """From latents to images."""

    config: LayerConfig
    widths: tuple[int, ...]
    """Of the levels, the largest image's first, as in the encoder."""
    layers: int
    features: int
    """Channels of the images."""

    @nn.compact
    def __call__(self, x: Image) -> Output:
        """Maps latents."""
        config, last = self.config, len(self.widths) - 1
        h = begin(config, x, self.widths[-1])
        h = _middle(config)(h)
        for i, width in enumerate(reversed(self.widths)):
            resampler = None if i == last else "conv"
            h = UpBlock(config, width, self.layers + 1, None, resampler, name=f"up_blocks.{i}")(h)
        return end(config, h, self.features, nn.silu)  # whatever the blocks' activation


def _middle(config: LayerConfig) -> MidBlock:
    return MidBlock(config, make_attention(config), 1.0, name="mid_block")
