"""The safety checker of Stable Diffusion 1.x, as diffusers has it, in Flax.

An image's features e are compared with those of 17 concepts c, and of 3 that ask for special care:

    (1)  special = cos(e, s_j) - w_j > 0                    for any j
    (2)  flagged = cos(e, c_i) - w_i + 0.01 special > 0     for any i

where the left sides are rounded to three decimals. Each w is the threshold of its concept.

Reference: Rando et al. 2022, arXiv:2210.04610, section 3.
"""

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Bool, Float, Shaped, UInt8

from ddpm_jax import pixels as host
from ddpm_jax.hub.component import ComponentFiles
from ddpm_jax.models import checks
from ddpm_jax.models.clip.layers import ACTIVATIONS, Encoder
from ddpm_jax.models.clip.vision import VisionModel, VisionTransformer
from ddpm_jax.models.from_transformers import TransformersModel
from ddpm_jax.models.layers.basic import Linear
from weights_convert.files import TRANSFORMERS

PREFIX = "vision_model."
"""Twice before the names of the image encoder; transformers 5.6 and later write it once."""
CONCEPTS = 17
SPECIAL = 3
CARE = 0.01
"""What special care adds to the scores of the concepts."""


class StableDiffusionSafetyChecker(TransformersModel):
    """Images to flags: `checker.apply({"params": params}, checker.preprocess(images))`.

    The fields are those of transformers' CLIPConfig that the checker reads: `vision_hidden_size` is
    `hidden_size` in `vision_config`. The other fields of a config file are left out, and so is the
    text encoder.

    Raises:
        ValueError: at construction; lists every fault of the config.
    """

    projection_dim: int = 512
    """Width of the features that are compared."""
    vision_hidden_size: int = 768
    """Width of the image encoder."""
    vision_intermediate_size: int = 3072
    """Width inside a layer."""
    vision_num_hidden_layers: int = 12
    """Number of layers."""
    vision_num_attention_heads: int = 12
    """Heads of an attention; must divide the width."""
    vision_image_size: int = 224
    """Side of the images in pixels."""
    vision_patch_size: int = 32
    """Side of a patch in pixels; must divide that of the images."""
    vision_hidden_act: str = "quick_gelu"
    """"quick_gelu" or "gelu"."""
    vision_layer_norm_eps: float = 1e-5
    """Added to the variance in every norm."""

    files = ComponentFiles(
        folder="safety_checker",
        config="config.json",
        classes=("StableDiffusionSafetyChecker",),
        weights=TRANSFORMERS,
        library="stable_diffusion",
    )
    model_type = "clip"
    sections: ClassVar[Mapping[str, str]] = {"vision_config": "vision_"}
    fixed_fields: ClassVar[Mapping[str, Any]] = {"vision_num_channels": 3}

    @classmethod
    def _param_name(cls, name: str) -> str | None:
        return PREFIX + name if name.startswith(PREFIX) and name.count(PREFIX) == 1 else name

    @classmethod
    def _faults(cls, fields: Mapping[str, Any]) -> Iterator[str]:
        vision = (
            "hidden_size",
            "intermediate_size",
            "num_hidden_layers",
            "num_attention_heads",
            "image_size",
            "patch_size",
        )
        counts = ("projection_dim", *(f"vision_{name}" for name in vision))
        choices = {"vision_hidden_act": tuple(ACTIVATIONS)}
        found = list(checks.values(fields, choices=choices, counts=counts))
        yield from found
        yield from checks.transformer(fields, "vision_")
        side, patch = fields["vision_image_size"], fields["vision_patch_size"]
        if not found and side % patch:
            yield f"vision_patch_size {patch} does not divide vision_image_size {side}"

    def setup(self) -> None:
        """The submodules and the parameters, under torch's names."""
        config = self._layer_config(activation=ACTIVATIONS[self.vision_hidden_act])
        encoder = Encoder(
            config,
            self.vision_num_hidden_layers,
            self.vision_num_attention_heads,
            self.vision_intermediate_size,
            self.vision_layer_norm_eps,
            parent=None,
        )
        transformer = VisionTransformer(
            config, self.vision_patch_size, self.vision_hidden_size, encoder, parent=None
        )
        exact, width = config.exact, self.projection_dim
        self.vision_model = VisionModel(transformer)
        self.visual_projection = Linear(width, exact.dtype, exact.param_dtype, use_bias=False)
        self.concept_embeds = self._bare("concept_embeds", CONCEPTS, width)
        self.concept_embeds_weights = self._bare("concept_embeds_weights", CONCEPTS)
        self.special_care_embeds = self._bare("special_care_embeds", SPECIAL, width)
        self.special_care_embeds_weights = self._bare("special_care_embeds_weights", SPECIAL)

    def _bare(self, name: str, *shape: int) -> Array:
        return self.param(name, nn.initializers.zeros, shape, jnp.dtype(self.param_dtype))

    @nn.nowrap
    def preprocess(self, images: UInt8[np.ndarray, "b h w 3"]) -> Float[np.ndarray, "b s s 3"]:
        """The checker's input, from RGB images of any size; on the host.

        Raises:
            ValueError: the images are not uint8, or not of shape (b, h, w, 3).
        """
        return host.for_clip(images, self.vision_image_size)

    def embed(self, pixels: Shaped[Array | np.ndarray, "..."]) -> Float[Array, "b d"]:
        """The features of images.

        Args:
            pixels: (b, vision_image_size, vision_image_size, 3), as `preprocess` returns them.

        Returns:
            (b, projection_dim), float32.

        Raises:
            ValueError: at trace time, for wrong shapes or dtypes.
        """
        checks.refuse(checks.square(pixels, self.vision_image_size, 3, "pixels"))
        return self.visual_projection(self.vision_model(jnp.asarray(pixels)))

    def __call__(self, pixels: Shaped[Array | np.ndarray, "..."]) -> Bool[Array, " b"]:
        """Whether each image is flagged: equations (1) and (2). Takes and raises as `embed`."""
        features = self.embed(pixels)
        special = _exceeds(features, self.special_care_embeds, self.special_care_embeds_weights)
        adjustment = CARE * special[:, None]
        return _exceeds(features, self.concept_embeds, self.concept_embeds_weights, adjustment)

    @nn.nowrap
    def _example_inputs(self) -> tuple[Any, ...]:
        side = self.vision_image_size
        return (jnp.zeros((1, side, side, 3)),)


def _exceeds(
    features: Float[Array, "b d"],
    concepts: Float[Array, "n d"],
    thresholds: Float[Array, " n"],
    adjustment: Float[Array, "b 1"] | float = 0.0,
) -> Bool[Array, " b"]:
    """Whether any rounded score of an image is above 0."""
    cosines = _normalized(features) @ _normalized(concepts.astype(features.dtype)).T
    scores = cosines - thresholds.astype(features.dtype)[None] + adjustment
    return (jnp.round(1000 * scores) > 0).any(axis=1)


def _normalized(x: Float[Array, "n d"]) -> Float[Array, "n d"]:
    return x / jnp.maximum(jnp.linalg.norm(x, axis=1, keepdims=True), 1e-12)
