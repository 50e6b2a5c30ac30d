"""DPT-hybrid, as transformers' `DPTForDepthEstimation` has it, in Flax.

    f_1, f_2, f_3 = backbone(x)                              1/4, 1/8 and 1/16 of the size
    t             = (cls_token, project(f_3)) + positions
    s_1, s_2      = the encoder's states after two of its layers
    depth         = head(neck(f_1, f_2, s_1, s_2))

Depth is inverse and relative: larger is closer, and only differences within an image mean anything.

Reference: Ranftl et al. 2021, arXiv:2103.13413.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Float, Shaped, UInt8

from ddpm_jax import pixels as host
from ddpm_jax._typing import is_whole
from ddpm_jax.hub.component import ComponentFiles
from ddpm_jax.models import checks
from ddpm_jax.models.dpt.bit import Backbone, BiT
from ddpm_jax.models.dpt.neck import Head, Neck
from ddpm_jax.models.dpt.vit import Encoder
from ddpm_jax.models.from_transformers import TransformersModel
from ddpm_jax.models.layers.basic import make_conv, make_layer_norm
from ddpm_jax.models.layers.config import ACTIVATIONS, LayerConfig
from ddpm_jax.models.layers.plain import Image
from weights_convert.files import TRANSFORMERS

STAGES = ("stage1", "stage2", "stage3")
PATCH = 16
"""Pixels of an image in a token, along each axis: what the backbone makes of them."""


class DPT(nn.Module):
    """The backbone and the transformer."""

    embeddings: "Embeddings"
    encoder: Encoder

    @nn.compact
    def __call__(self, x: Image) -> tuple[list[Array], list[Array]]:
        """The images after the backbone's stages, and the sequences after the encoder's layers."""
        maps, tokens = self.embeddings(x)
        states = self.encoder(tokens)
        # No output reads this norm, but torch has its parameters.
        make_layer_norm(self.encoder.config, "layernorm", self.encoder.eps)(states[-1])
        return maps, states


class Embeddings(nn.Module):
    """The backbone, and tokens of its last stage."""

    config: LayerConfig
    width: int
    backbone: Backbone

    @nn.compact
    def __call__(self, x: Image) -> tuple[list[Array], Float[Array, "b n d"]]:
        """The images after the backbone's stages, and one token more than the last has pixels."""
        config, zeros = self.config, nn.initializers.zeros
        maps = self.backbone(x)
        tokens = make_conv(config.exact, self.width, "projection", size=1)(maps[-1])
        tokens = tokens.reshape(len(x), -1, self.width)
        shape = (1, tokens.shape[1] + 1, self.width)
        first = self.param("cls_token", zeros, (1, 1, self.width), config.param_dtype)
        positions = self.param("position_embeddings", zeros, shape, config.param_dtype)
        first = jnp.broadcast_to(first.astype(tokens.dtype), (len(x), 1, self.width))
        tokens = jnp.concatenate([first, tokens], axis=1) + positions.astype(tokens.dtype)
        return maps, tokens.astype(config.dtype)


class DPTForDepthEstimation(TransformersModel):
    """Images to depth: `dpt.apply({"params": params}, dpt.preprocess(images))`.

    The fields are those of transformers' config that the network reads, with its defaults:
    `bit_depths` is `depths` in `backbone_config`. The other fields of a config file are left out.
    Only hybrid networks are supported, which have a convolutional backbone of three stages.

    Raises:
        ValueError: at construction; lists every fault of the config.
    """

    is_hybrid: bool = False
    """Must be true."""
    hidden_size: int = 768
    """Width of the transformer."""
    num_hidden_layers: int = 12
    """Layers of the transformer."""
    num_attention_heads: int = 12
    """Heads of an attention; must divide the width."""
    intermediate_size: int = 3072
    """Width inside a layer."""
    hidden_act: str = "gelu"
    """Activation of the transformer and of the neck."""
    layer_norm_eps: float = 1e-12
    """Added to the variance in the transformer's norms."""
    image_size: int = 384
    """Side of the images in pixels; a multiple of 32."""
    qkv_bias: bool = True
    """Whether queries, keys and values have a bias."""
    backbone_out_indices: Sequence[int] = (2, 5, 8, 11)
    """Layers whose states are used, of which a hybrid network has the last two."""
    backbone_featmap_shape: Sequence[int] = (1, 1024, 24, 24)
    """(1, channels of the backbone's last stage, height, width)."""
    neck_hidden_sizes: Sequence[int] = (96, 192, 384, 768)
    """Channels of the four images in the neck; the first two are those of the backbone."""
    neck_ignore_stages: Sequence[int] = (0, 1)
    """Must be (0, 1): the images that do not come from the transformer."""
    reassemble_factors: Sequence[float] = (4, 2, 1, 0.5)
    """Sizes of the four images over the transformer's; the last two must be 1 and 0.5."""
    fusion_hidden_size: int = 256
    """Channels of the images that are joined; even."""
    use_bias_in_fusion_residual: bool | None = None
    """Must be true or None, which mean the same."""
    bit_depths: Sequence[int] = (3, 4, 6, 3)
    """Layers in each of the backbone's stages; must be three."""
    bit_hidden_sizes: Sequence[int] = (256, 512, 1024, 2048)
    """Channels of each stage, multiples of 32; those beyond the third are not used."""
    bit_embedding_size: int = 64
    """Channels of the backbone's stem."""
    bit_num_groups: int = 32
    """Groups of the backbone's norms; must divide its channels, also a quarter of a stage's."""
    bit_layer_type: str = "preactivation"
    """Must be "bottleneck"."""
    bit_global_padding: str | None = None
    """Must be "SAME" or "same"."""
    bit_embedding_dynamic_padding: bool = False
    """Must be true."""
    bit_out_features: Sequence[str] | None = None
    """Must be ("stage1", "stage2", "stage3")."""

    files = ComponentFiles(
        folder="depth_estimator",
        config="config.json",
        classes=("DPTForDepthEstimation",),
        weights=TRANSFORMERS,
        library="transformers",
    )
    model_type = "dpt"
    sections: ClassVar[Mapping[str, str]] = {"backbone_config": "bit_"}
    fixed_fields: ClassVar[Mapping[str, Any]] = {
        "add_projection": False,
        "bit_hidden_act": "relu",
        "bit_model_type": "bit",
        "bit_num_channels": 3,
        "bit_output_stride": 32,
        "bit_width_factor": 1,
        "head_in_index": -1,
        "num_channels": 3,
        "patch_size": PATCH,
        "readout_type": "project",
        "use_batch_norm_in_fusion_residual": False,
    }

    @classmethod
    def _faults(cls, fields: Mapping[str, Any]) -> Iterator[str]:
        if fields["is_hybrid"] is not True:
            yield f"only hybrid networks: is_hybrid must be true, got {fields['is_hybrid']!r}"
            return
        counts = (
            "hidden_size",
            "num_hidden_layers",
            "num_attention_heads",
            "intermediate_size",
            "image_size",
            "fusion_hidden_size",
            "bit_embedding_size",
            "bit_num_groups",
        )
        choices = {
            "hidden_act": tuple(ACTIVATIONS),
            "neck_ignore_stages": ((0, 1),),
            "use_bias_in_fusion_residual": (None, True),
            "bit_layer_type": ("bottleneck",),
            "bit_global_padding": ("SAME", "same"),
            "bit_embedding_dynamic_padding": (True,),
            "bit_out_features": (STAGES,),
        }
        found = [
            *checks.values(fields, choices=choices, counts=counts, flags=("qkv_bias",)),
            *checks.transformer(fields),
            *_lists(fields),
        ]
        yield from found or _sizes(fields)

    @nn.compact
    def __call__(self, pixels: Shaped[Array | np.ndarray, "..."]) -> Float[Array, "b h w"]:
        """The inverse depth of images: larger is closer; scale and offset mean nothing.

        Args:
            pixels: (b, image_size, image_size, 3), as `preprocess` returns them.

        Returns:
            (b, image_size, image_size), float32, not negative.

        Raises:
            ValueError: at trace time, for wrong shapes or dtypes.
        """
        checks.refuse(checks.square(pixels, self.image_size, 3, "pixels"))
        config = self._layer_config(
            groups=self.bit_num_groups, activation=ACTIVATIONS[self.hidden_act]
        )
        widths, depths = tuple(self.bit_hidden_sizes[:3]), tuple(self.bit_depths)
        bit = BiT(config, self.bit_embedding_size, widths, depths, parent=None)
        encoder = Encoder(
            config,
            self.num_hidden_layers,
            self.num_attention_heads,
            self.intermediate_size,
            self.layer_norm_eps,
            self.qkv_bias,
            parent=None,
        )
        embeddings = Embeddings(config, self.hidden_size, Backbone(bit, parent=None), parent=None)
        maps, states = DPT(embeddings, encoder, name="dpt")(jnp.asarray(pixels))
        used = [states[i] for i in self.backbone_out_indices[2:]]
        neck = Neck(config, tuple(self.neck_hidden_sizes[2:]), self.fusion_hidden_size, name="neck")
        return Head(config, name="head")(neck(maps[:2], used))[..., 0]

    @nn.nowrap
    def preprocess(self, images: UInt8[np.ndarray, "b h w 3"]) -> Float[np.ndarray, "b s s 3"]:
        """The network's input, from RGB images of any size; on the host.

        Raises:
            ValueError: the images are not uint8, or not of shape (b, h, w, 3).
        """
        return host.for_depth(images, self.image_size)

    @nn.nowrap
    def _example_inputs(self) -> tuple[Any, ...]:
        return (jnp.zeros((1, self.image_size, self.image_size, 3)),)


def _lists(fields: Mapping[str, Any]) -> Iterator[str]:
    """Faults of the lists of numbers by themselves."""
    for name, length, accepts, what in (
        ("backbone_featmap_shape", 4, checks.is_count, "positive integers"),
        ("backbone_out_indices", 4, is_whole, "integers"),
        ("bit_depths", 3, checks.is_count, "positive integers"),
        ("bit_hidden_sizes", None, checks.is_count, "positive integers"),
        ("neck_hidden_sizes", 4, checks.is_count, "positive integers"),
        ("reassemble_factors", 4, checks.is_number, "numbers"),
    ):
        value = fields[name]
        fits = isinstance(value, tuple) and len(value) == (length or max(3, len(value)))
        if not fits or not all(map(accepts, value)):
            yield f"{name} must be a list of {length or 'at least 3'} {what}, got {value!r}"


def _sizes(fields: Mapping[str, Any]) -> Iterator[str]:
    """Faults of fields that have to fit each other."""
    side, layers = fields["image_size"], fields["num_hidden_layers"]
    first, second = fields["backbone_out_indices"][2:]
    widths, neck = fields["bit_hidden_sizes"][:3], fields["neck_hidden_sizes"]
    groups, stem = fields["bit_num_groups"], fields["bit_embedding_size"]
    if side % (2 * PATCH):
        yield f"image_size must be a multiple of {2 * PATCH}, got {side}"
    if fields["fusion_hidden_size"] % 2:
        yield f"fusion_hidden_size must be even, got {fields['fusion_hidden_size']}"
    if not 0 <= first < second < layers:
        yield (
            f"the last two of backbone_out_indices must ascend in 0..{layers - 1}, got {first} and "
            f"{second}"
        )
    if fields["reassemble_factors"][2:] != (1, 0.5):
        yield (
            "the last two of reassemble_factors must be 1 and 0.5, got "
            f"{fields['reassemble_factors']}"
        )
    if neck[:2] != widths[:2]:
        yield f"neck_hidden_sizes must begin as bit_hidden_sizes {widths}, got {neck}"
    if fields["backbone_featmap_shape"][1] != widths[2]:
        yield (
            f"backbone_featmap_shape must have the channels of the last stage, {widths[2]}, got "
            f"{fields['backbone_featmap_shape']}"
        )
    if any(width % 32 for width in widths):
        yield f"bit_hidden_sizes must be multiples of 32, got {widths}"
    elif any(width % groups for width in (stem, *(width // 4 for width in widths))):
        yield (
            f"bit_num_groups {groups} must divide bit_embedding_size {stem} and a quarter of each "
            f"of bit_hidden_sizes {widths}"
        )
