"""CLIP's image encoder, as transformers' `CLIPVisionModel` has it, in Flax.

    x        = (class_embedding, patches) + position_embedding(0, 1, ...)
    features = post_layernorm(encoder(pre_layrnorm(x))_0)

The patches are those of a convolution whose stride is its size. The weights of transformers have
the misspelled name.

Reference: Radford et al. 2021, arXiv:2103.00020; Dosovitskiy et al. 2021, arXiv:2010.11929.
"""

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from ddpm_jax.models.clip.layers import Encoder
from ddpm_jax.models.layers.basic import make_conv, make_layer_norm
from ddpm_jax.models.layers.config import LayerConfig
from ddpm_jax.models.layers.embeddings import Embedding
from ddpm_jax.models.layers.plain import Image

Features = Float[Array, "b d"]


class VisionModel(nn.Module):
    """Holds the network: older weights have it in two modules of one name."""

    vision_model: "VisionTransformer"

    def __call__(self, pixels: Image) -> Features:
        """The features of images."""
        return self.vision_model(pixels)


class VisionTransformer(nn.Module):
    """All of the network."""

    config: LayerConfig
    patch: int
    """Side of a patch in pixels."""
    width: int
    encoder: Encoder

    @nn.compact
    def __call__(self, pixels: Image) -> Features:
        """The features of images, from the token that is none of their patches."""
        exact, eps = self.config.exact, self.encoder.eps
        x = VisionEmbeddings(exact, self.patch, self.width, name="embeddings")(pixels)
        x = make_layer_norm(self.config, "pre_layrnorm", eps)(x)
        return make_layer_norm(exact, "post_layernorm", eps)(self.encoder(x)[:, 0])


class VisionEmbeddings(nn.Module):
    """The tokens of an image, with their positions."""

    config: LayerConfig
    patch: int
    width: int

    @nn.compact
    def __call__(self, pixels: Image) -> Float[Array, "b n d"]:
        """One token more than there are patches."""
        config, width, patch = self.config, self.width, self.patch
        cut = {"size": patch, "stride": patch, "padding": ((0, 0), (0, 0))}
        patches = make_conv(config, width, "patch_embedding", use_bias=False, **cut)(pixels)
        patches = patches.reshape(len(pixels), -1, width)
        first = self.param("class_embedding", nn.initializers.zeros, (width,), config.param_dtype)
        first = jnp.broadcast_to(first.astype(patches.dtype), (len(pixels), 1, width))
        x = jnp.concatenate([first, patches], axis=1)
        table = Embedding(x.shape[1], width, config.param_dtype, name="position_embedding")
        return x + table(jnp.arange(x.shape[1])).astype(x.dtype)[None]
