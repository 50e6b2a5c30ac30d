"""Inception-v3 in the variant of FID: the graph inception-2015-12-05 of TensorFlow.

It differs from torchvision's in its weights, in 1008 classes, in average pools that leave out what
lies outside the image, and in a max pool in the last block. Submodules have the names of
torchvision's, so `weights_convert.to_flax` reads a torch state dict with no table of names.

    image 299x299 -> stem 35x35x192 -> A A A 35x35x288 -> B C C C C 17x17x768
                  -> D E E 8x8x2048 -> mean 2048 ("pool3", the features) -> 1008 logits

Reference: Szegedy et al. 2016, arXiv:1512.00567; Heusel et al. 2017, arXiv:1706.08500.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from ddpm_jax.evaluation.inception.blocks import (
    InceptionA,
    InceptionB,
    InceptionC,
    InceptionD,
    InceptionE,
)
from ddpm_jax.evaluation.inception.layers import ConvNorm, Linear, halved
from ddpm_jax.models.layers.plain import Image

SIDE, FEATURES, CLASSES = 299, 2048, 1008

BLOCKS: dict[str, Callable[..., nn.Module]] = {
    "Mixed_5b": partial(InceptionA, 32),
    "Mixed_5c": partial(InceptionA, 64),
    "Mixed_5d": partial(InceptionA, 64),
    "Mixed_6a": InceptionB,
    "Mixed_6b": partial(InceptionC, 128),
    "Mixed_6c": partial(InceptionC, 160),
    "Mixed_6d": partial(InceptionC, 160),
    "Mixed_6e": partial(InceptionC, 192),
    "Mixed_7a": InceptionD,
    "Mixed_7b": partial(InceptionE, last=False),
    "Mixed_7c": partial(InceptionE, last=True),
}
"""All blocks behind the stem, in their order."""


class Pool3(NamedTuple):
    """What the network says of images.

    Attributes:
        features: the last layer but one, 2048 numbers.
        products: the last layer without its bias, whose softmax the Inception score takes.
        logits: the last layer.
    """

    features: Float[Array, "b 2048"]
    products: Float[Array, "b 1008"]
    logits: Float[Array, "b 1008"]


class InceptionV3(nn.Module):
    """The network, for images of at least 75x75 pixels; those of FID have 299x299."""

    @nn.compact
    def __call__(self, x: Image) -> Pool3:
        """Maps images (b, h, w, 3) in [-1, 1]."""
        x = ConvNorm(32, (3, 3), 2, same=False, name="Conv2d_1a_3x3")(x)
        x = ConvNorm(32, (3, 3), same=False, name="Conv2d_2a_3x3")(x)
        x = halved(ConvNorm(64, (3, 3), name="Conv2d_2b_3x3")(x))
        x = ConvNorm(80, (1, 1), name="Conv2d_3b_1x1")(x)
        x = halved(ConvNorm(192, (3, 3), same=False, name="Conv2d_4a_3x3")(x))
        for name, block in BLOCKS.items():
            x = block(name=name)(x)
        features = x.mean((1, 2))
        products, bias = Linear(CLASSES, name="fc")(features)
        return Pool3(features, products, products + bias[None])

    @nn.nowrap
    def shapes(self) -> dict[str, Any]:
        """The params tree with shapes as leaves. Nothing is allocated."""
        x = jax.ShapeDtypeStruct((1, 75, 75, 3), jnp.float32)
        return dict(jax.eval_shape(self.init, jax.random.key(0), x)["params"])
