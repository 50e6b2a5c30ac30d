"""The blocks of NCSN++, with an image pyramid beside each of the two paths.

Down, image being the network's input at first:

    (1)  h = resnet_down(resnets(h))     image <- halve_smooth(image)
    (2)  h <- h + skip_conv(image)

Up, image being None at first, and at the end added to the network's output:

    (3)  h = resnets(h, skips)           image <- double_smooth(image) + skip_conv(act(norm(h)))
    (4)  h <- resnet_up(h)

The last block of each path does not resample: down it has neither (1)'s resnet_down nor (2), up
neither (4) nor (3)'s skip_conv. All sums of residual blocks and attentions are divided by sqrt(2),
and every norm has min(channels // 4, 32) groups, but those of attentions, which have 32. Images are
float32 at least.

Reference: Song et al. 2021, arXiv:2011.13456, appendix H (NCSN++); Karras et al. 2020,
arXiv:1912.04958 (the pyramids).
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from ddpm_jax.models.layers.basic import default_groups, make_conv, make_norm
from ddpm_jax.models.layers.config import LayerConfig
from ddpm_jax.models.layers.fir import double_smooth, halve_smooth
from ddpm_jax.models.layers.plain import Image, Output
from ddpm_jax.models.layers.resnet import ResnetBlock
from ddpm_jax.models.layers.unet_blocks import Embedding, make_attention, make_resnet

OUTPUT_SCALE = math.sqrt(2)
ATTENTION_GROUPS = 32
IMAGE_CHANNELS = 3
"""Of both pyramids' images."""

Pyramid = Float[Array, "b _ _ 3"]


class SkipDownBlock(nn.Module):
    """Equations (1) and (2)."""

    config: LayerConfig
    features: int
    layers: int
    attends: bool
    """After each residual block."""
    resamples: bool

    @nn.compact
    def __call__(
        self, x: Image, emb: Embedding, image: Float[Array, "b _ _ _"]
    ) -> tuple[Output, list[Float[Array, "b _ _ _"]], Float[Array, "b _ _ _"]]:
        """Maps images; also returns the skips, the inputs of the up path, and the pyramid's image,
        which has the size of the output.
        """
        skips: list[Array] = []
        for i in range(self.layers):
            x = _resnet(self, f"resnets.{i}")(x, emb)
            if self.attends:
                x = _attention(self, f"attentions.{i}")(x)
            skips.append(x)
        if not self.resamples:
            return x, skips, image
        x = _resnet(self, "resnet_down", resample="halve_smooth", shortcut=True)(x, emb)
        image = halve_smooth(image)
        x = make_conv(self.config, self.features, "skip_conv", size=1)(image) + x
        return x, [*skips, x], image


class SkipUpBlock(nn.Module):
    """Equations (3) and (4)."""

    config: LayerConfig
    features: int
    layers: int
    attends: bool
    """Once, after all residual blocks."""
    resamples: bool

    @nn.compact
    def __call__(
        self,
        x: Image,
        skips: Sequence[Float[Array, "b h w _"]],
        emb: Embedding,
        image: Pyramid | None,
    ) -> tuple[Output, Pyramid | None]:
        """Maps images, the last of `skips` used first; also returns the pyramid's image, which has
        the size of x.
        """
        for i in range(self.layers):
            skip = skips[-1 - i]
            groups = first_groups(x.shape[-1], skip.shape[-1], self.attends)
            x = jnp.concatenate([x, skip], axis=-1)
            x = _resnet(self, f"resnets.{i}", groups=groups)(x, emb)
        if self.attends:
            x = _attention(self, "attentions.0")(x)
        image = None if image is None else double_smooth(image)
        if not self.resamples:
            return x, image
        exact = replace(_own(self.config), dtype=self.config.exact.dtype)
        part = make_norm(exact, "skip_norm", nn.silu)(x)
        part = make_conv(exact, IMAGE_CHANNELS, "skip_conv")(part)
        x = _resnet(self, "resnet_up", resample="double_smooth", shortcut=True)(x, emb)
        return x, part if image is None else image + part


def first_groups(hidden: int, skip: int, attends: bool) -> int:
    """Groups of an up block's norms over h and a skip, by their channels.

    diffusers divides only the skip's by 4 where the block attends: this changes the groups where
    there are fewer than 128 channels, and its checkpoints are trained with it.
    """
    return min(hidden + skip // 4, 32) if attends else default_groups(hidden + skip)


def _resnet(block: SkipDownBlock | SkipUpBlock, name: str, **options: Any) -> ResnetBlock:
    config = _own(block.config)
    return make_resnet(config, block.features, name, output_scale=OUTPUT_SCALE, **options)


def _attention(block: SkipDownBlock | SkipUpBlock, name: str) -> nn.Module:
    return make_attention(block.config, ATTENTION_GROUPS, OUTPUT_SCALE)(name)


def _own(config: LayerConfig) -> LayerConfig:
    """Every norm with groups by its channels, whatever the model's other norms have."""
    return replace(config, groups=None)
