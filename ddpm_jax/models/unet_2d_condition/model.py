"""The UNet of latent diffusion, as diffusers' `UNet2DConditionModel` has it, in Flax.

    emb    = mlp(sinusoid(timestep))
    h      = through the down, middle and up blocks of conv_in(x), with emb and the context
    output = conv_out(act(norm(h)))

Parameters have torch's names, as those of `UNet2DModel`.

Reference: Rombach et al. 2022, arXiv:2112.10752; Ho et al. 2020, arXiv:2006.11239.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar, cast

import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax.typing import ArrayLike
from jaxtyping import Array, Shaped

from ddpm_jax.hub.component import ComponentFiles
from ddpm_jax.models import checks
from ddpm_jax.models.layers.attention import Context
from ddpm_jax.models.layers.config import ACTIVATIONS, LayerConfig
from ddpm_jax.models.layers.embeddings import EmbeddingMLP, sinusoid
from ddpm_jax.models.layers.plain import Image
from ddpm_jax.models.layers.unet_blocks import (
    DownBlock,
    MakeAttention,
    MidBlock,
    UpBlock,
    begin,
    end,
    make_transformer,
)
from ddpm_jax.models.layers.unet_path import through
from ddpm_jax.models.pretrained import Model, ModelT
from ddpm_jax.models.unet_2d_condition import config as unet_config
from ddpm_jax.models.unet_2d_condition.config import DOWN, UP, Level, levels
from weights_convert.files import DIFFUSERS


class UNet2DConditionModel(Model):
    """(x, timestep, context) to an output with the size of x, such as the noise in x.

    Call it as `model.apply({"params": params}, x, timestep, context)`. The fields are those of
    diffusers' config that Stable Diffusion uses, with their defaults; of the others only the
    defaults are accepted. No config file has `dtype`, `param_dtype` and `remat`.

    Raises:
        ValueError: at construction; lists every fault of the config.
    """

    sample_size: int | Sequence[int] | None = None
    """Size of the training images. The network accepts all sizes."""
    in_channels: int = 4
    """Channels of x."""
    out_channels: int = 4
    """Channels of the output."""
    center_input_sample: bool = False
    """Rescale x to 2 x - 1 first."""
    flip_sin_to_cos: bool = True
    """Time embedding: cosines first."""
    freq_shift: float = 0
    """Time embedding: 1 for the frequencies of DDPM, 0 for improved DDPM."""
    down_block_types: Sequence[str] = (*("CrossAttnDownBlock2D",) * 3, "DownBlock2D")
    """One name for each resolution, the finest first."""
    mid_block_type: str = "UNetMidBlock2DCrossAttn"
    """The only one that there is."""
    up_block_types: Sequence[str] = ("UpBlock2D", *("CrossAttnUpBlock2D",) * 3)
    """One name for each resolution, the coarsest first."""
    only_cross_attention: bool | Sequence[bool] = False
    """The first attention of a transformer block reads the context too; or one for each level."""
    block_out_channels: Sequence[int] = (320, 640, 1280, 1280)
    """Channels at each resolution, the finest first."""
    layers_per_block: int | Sequence[int] = 2
    """Residual blocks in a down block; an up block has one more. One, or one for each level."""
    downsample_padding: int = 1
    """1: on all sides; 0: right and bottom only."""
    mid_block_scale_factor: float = 1
    """Divisor of the sums in the residual blocks of the middle block."""
    dropout: float = 0.0
    """Dropout rate of the residual blocks in training, in [0, 1)."""
    act_fn: str = "silu"
    """Activation of the residual blocks, the time embedding and the output."""
    norm_num_groups: int = 32
    """Groups of every group norm; must divide every number of channels."""
    norm_eps: float = 1e-5
    """Added to the variance in the group norms; in those of transformers it is 1e-6."""
    cross_attention_dim: int = 1280
    """Width of the context."""
    transformer_layers_per_block: int | Sequence[int] = 1
    """Transformer blocks in an attention. One number, or one for each level."""
    attention_head_dim: int | Sequence[int] = 8
    """The number of heads, whatever its name says. One, or one for each level."""
    use_linear_projection: bool = False
    """The linear maps around transformer blocks are stored as such, and not as 1x1 convolutions."""
    upcast_attention: bool = False
    """Changes nothing: attention's logits are float32 always."""
    remat: bool = False
    """As in `UNet2DModel`."""

    files = ComponentFiles(
        folder="unet",
        config="config.json",
        classes=("UNet2DConditionModel",),
        weights=DIFFUSERS,
    )
    runtime_fields = (*Model.runtime_fields, "remat")
    fixed_fields: ClassVar[Mapping[str, Any]] = unet_config.FIXED

    @classmethod
    def from_config(cls: type[ModelT], config: Mapping[str, Any], **overrides: Any) -> ModelT:
        """As `Model.from_config`. Before diffusers 0.9 `sample_size` had no meaning, and files say
        32 where 64 is right.
        """
        version = re.match(r"0\.(\d+)", str(config.get("_diffusers_version", "")))
        size = config.get("sample_size")
        if version and int(version[1]) < 9 and isinstance(size, int) and size < 64:
            config = {**config, "sample_size": 64}
        return super().from_config(config, **overrides)

    @classmethod
    def _faults(cls, fields: Mapping[str, Any]) -> Iterator[str]:
        return unet_config.faults(fields)

    @nn.nowrap
    def denoise(self, params: Any, x: Image, timestep: ArrayLike, context: Context) -> Image:
        """The network for `ddpm_jax.guided`, which makes it one for `ddpm_jax.sample`.

        Args:
            params: of this model.
            x: (b, h, w, in_channels) noisy images or latents.
            timestep: a scalar or (b,).
            context: (b, t, cross_attention_dim).
        """
        output = self.apply({"params": params}, x, timestep, context)
        return cast(Array, output)  # apply returns a pair only for mutable collections

    def __call__(
        self,
        x: Shaped[Array | np.ndarray, "..."],
        timestep: ArrayLike,
        context: Shaped[Array | np.ndarray, "..."],
        train: bool = False,
    ) -> Image:
        """Evaluate the network.

        Args:
            x: (b, h, w, in_channels) noisy images or latents, of any size.
            timestep: a scalar or (b,), integer or float.
            context: (b, t, cross_attention_dim), such as the features of a text; any length t. All
                of it is attended to.
            train: use dropout, which needs `rngs={"dropout": key}`.

        Returns:
            (b, h, w, out_channels), always float32.

        Raises:
            ValueError: at trace time, for wrong shapes or dtypes.
            TypeError: it is called as a function: a model has no params.
        """
        self._check_bound("x, timestep, context", "x, timestep, context")
        return self._evaluate(x, timestep, context, train)

    @nn.compact
    def _evaluate(self, x: Any, timestep: ArrayLike, context: Any, train: bool) -> Image:
        self._check_inputs(x, timestep, context)
        activation = ACTIVATIONS[self.act_fn.lower()]
        layer = self._layer_config(
            groups=self.norm_num_groups,
            eps=self.norm_eps,
            activation=activation,
            dropout=self.dropout if train else 0.0,
            train=train,
            remat=self.remat,
        )
        widths = self.block_out_channels
        x = jnp.asarray(x, layer.exact.dtype)
        x = 2 * x - 1 if self.center_input_sample else x
        times = jnp.broadcast_to(jnp.asarray(timestep), x.shape[:1])
        waves = sinusoid(times, widths[0], self.flip_sin_to_cos, self.freq_shift)
        mlp = EmbeddingMLP(layer.exact, 4 * widths[0], activation, name="time_embedding")

        h = begin(layer, x, widths[0])
        h, _ = through(
            h,
            x,
            mlp(waves),
            jnp.asarray(context, layer.dtype),
            down=self._down_blocks(layer),
            mid=self._mid_block(layer),
            up=self._up_blocks(layer),
        )
        return end(layer, h, self.out_channels, activation)

    @nn.nowrap
    def _down_blocks(self, layer: LayerConfig) -> Iterator[DownBlock]:
        """First to last. The last block does not resample."""
        steps = levels(self)
        for i, (kind, level) in enumerate(zip(self.down_block_types, steps, strict=True)):
            yield DownBlock(
                layer,
                level.width,
                level.layers,
                self._attention(layer, level) if DOWN[kind] else None,
                None if i == len(steps) - 1 else "conv",
                self.downsample_padding,
                name=f"down_blocks.{i}",
            )

    @nn.nowrap
    def _mid_block(self, layer: LayerConfig) -> MidBlock:
        """The block at the smallest size. Its transformer never reads the context twice."""
        last = replace(levels(self)[-1], only_cross=False)
        scale = self.mid_block_scale_factor
        return MidBlock(layer, self._attention(layer, last), scale, name="mid_block")

    @nn.nowrap
    def _up_blocks(self, layer: LayerConfig) -> Iterator[UpBlock]:
        """First to last. The last block does not resample."""
        steps = levels(self)[::-1]
        for i, (kind, level) in enumerate(zip(self.up_block_types, steps, strict=True)):
            yield UpBlock(
                layer,
                level.width,
                level.layers + 1,
                self._attention(layer, level) if UP[kind] else None,
                None if i == len(steps) - 1 else "conv",
                name=f"up_blocks.{i}",
            )

    @nn.nowrap
    def _attention(self, layer: LayerConfig, level: Level) -> MakeAttention:
        return make_transformer(
            layer,
            level.heads,
            depth=level.depth,
            linear=self.use_linear_projection,
            only_cross=level.only_cross,
        )

    @nn.nowrap
    def _check_inputs(self, x: Any, timestep: ArrayLike, context: Any) -> None:
        found = list(checks.image(x, self.in_channels))
        batch, shape = jnp.shape(x)[0] if jnp.ndim(x) else 0, jnp.shape(context)
        found += checks.timestep(batch, timestep)
        width = self.cross_attention_dim
        if len(shape) != 3 or shape[0] != batch or shape[2] != width or not shape[1]:
            found.append(f"context must be of shape ({batch}, tokens, {width}), got shape {shape}")
        checks.refuse(found)

    @nn.nowrap
    def _example_inputs(self) -> tuple[Any, ...]:
        x = jnp.zeros((1, 8, 8, self.in_channels))
        return x, jnp.ones(()), jnp.zeros((1, 1, self.cross_attention_dim))
