"""The UNet of Ho et al., as diffusers' `UNet2DModel` has it, in Flax.

    emb    = mlp(time_proj(timestep)) [+ class embedding]
    skips  = conv_in(x), then what every down block leaves
    h      = up_blocks(mid_block(down_blocks(conv_in(x), emb), emb), skips, emb)
    output = conv_out(silu(norm(h))) [/ timestep, with a fourier time embedding: its timestep is sigma]

Parameters have torch's names: `params["down_blocks.0"]["resnets.0"]["conv1"]["kernel"]`.

Reference: Ho et al. 2020, arXiv:2006.11239; Song et al. 2021 (fourier, division by sigma), arXiv:2011.13456.
"""

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, Self

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Key, Num, Shaped, UInt32

from ddpm_jax.config import Config
from ddpm_jax.models import unet_config
from ddpm_jax.models.blocks import DOWN, UP, DownBlock, MidBlock, UpBlock, plain_name
from ddpm_jax.models.embeddings import Embedding, EmbeddingMLP, Fourier, sinusoid
from ddpm_jax.models.layers import Image, make_conv, make_norm
from ddpm_jax.models.style import ACTIVATIONS, Style
from ddpm_jax.models.unet_inputs import check_inputs


class UNet2DModel(nn.Module):
    """(x, timestep) to an output shaped like x: the noise, x0 or v that it was trained to predict.

    Call it as `model.apply({"params": params}, x, timestep)`. Fields are those of diffusers' config, with its defaults.

    Raises:
        ValueError: at construction, listing every fault of the config.
    """

    sample_size: int | tuple[int, int] | None = None
    """Height and width of the pictures; pipelines read it, the network takes any size that halves evenly."""
    in_channels: int = 3
    out_channels: int = 3
    center_input_sample: bool = False
    """x <- 2 x - 1 first."""
    time_embedding_type: str = "positional"
    """"positional", "fourier" or "learned"."""
    time_embedding_dim: int | None = None
    """Width of the time embedding; None: four times the first of `block_out_channels`."""
    freq_shift: float = 0
    """Positional: 1 for the frequencies of DDPM, 0 for those of improved DDPM."""
    flip_sin_to_cos: bool = True
    """Positional: cosines first."""
    down_block_types: tuple[str, ...] = ("DownBlock2D", *("AttnDownBlock2D",) * 3)
    mid_block_type: str | None = "UNetMidBlock2D"
    """None: no middle block."""
    up_block_types: tuple[str, ...] = (*("AttnUpBlock2D",) * 3, "UpBlock2D")
    block_out_channels: tuple[int, ...] = (224, 448, 672, 896)
    layers_per_block: int = 2
    """Residual blocks in a down block; an up block has one more."""
    mid_block_scale_factor: float = 1
    """The middle block's sums are divided by it."""
    downsample_padding: int = 1
    """1: on all sides; 0: right and bottom only."""
    downsample_type: str = "conv"
    """"conv" or "resnet", in blocks with attention."""
    upsample_type: str = "conv"
    """"conv" or "resnet", in blocks with attention."""
    dropout: float = 0.0
    act_fn: str = "silu"
    """Of the residual blocks; time embedding and output always have SiLU."""
    attention_head_dim: int | None = 8
    """Channels of one head; None: one head over all channels."""
    norm_num_groups: int = 32
    attn_norm_num_groups: int | None = None
    """Groups of the norm in the middle attention; None: `norm_num_groups`, or no norm with "scale_shift"."""
    norm_eps: float = 1e-5
    resnet_time_scale_shift: str = "default"
    """"default": the time embedding is added; "scale_shift": it scales and shifts."""
    add_attention: bool = True
    """Attention in the middle block."""
    class_embed_type: str | None = None
    """None, "timestep" (embedded like one) or "identity" (labels are embeddings)."""
    num_class_embeds: int | None = None
    """Rows of a learned class table, where `class_embed_type` is None."""
    num_train_timesteps: int | None = None
    """Rows of a learned time table."""
    dtype: Any = jnp.float32
    """Of the computation: float32, bfloat16 or float16. The output is float32."""
    param_dtype: Any = jnp.float32
    """Of the parameters that `init` makes."""

    def __post_init__(self) -> None:
        for field in CONFIG_FIELDS:
            if isinstance(value := getattr(self, field), list):
                object.__setattr__(self, field, tuple(value))
        unet_config.check({**self._fields(), "dtype": self.dtype, "param_dtype": self.param_dtype})
        super().__post_init__()

    @classmethod
    def from_config(cls, config: Mapping[str, Any], **overrides: Any) -> Self:
        """The model of a diffusers config; overrides are fields, `dtype` and `param_dtype` among them.

        Raises:
            ValueError: unknown keys (those that start with an underscore are skipped), or a faulty config.
        """
        return cls(**(unet_config.read_config(config, set(CONFIG_FIELDS)) | overrides))

    @property
    def config(self) -> Config:
        """Every field of diffusers' config."""
        return Config(self._fields(), class_name=type(self).__name__)

    @nn.nowrap
    def _fields(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in CONFIG_FIELDS}

    @nn.compact
    def __call__(
        self,
        x: Shaped[Array | np.ndarray, "..."],
        timestep: ArrayLike,
        class_labels: ArrayLike | None = None,
        train: bool = False,
    ) -> Image:
        """Evaluate the network.

        Args:
            x: noisy pictures (b, h, w, in_channels), floats.
            timestep: whole or not, a scalar or (b,). Never rounded but for a learned embedding, which gives NaN outside its table.
            class_labels: (b,) integers for a learned class embedding (NaN outside its table), (b,) numbers for
                "timestep", (b, time_embedding_dim) floats for "identity"; None for a model without classes.
            train: with dropout, which takes `rngs={"dropout": key}`.

        Returns:
            (b, h, w, out_channels), float32 whatever `dtype` is.

        Raises:
            ValueError: at trace time, for shapes or dtypes that do not fit, and labels missing or not wanted.
        """
        check_inputs(self._fields(), x, timestep, class_labels)
        self._check_rng(train)
        style = self._style()
        x = jnp.asarray(x, jnp.float32)
        x = 2 * x - 1 if self.center_input_sample else x
        timestep = jnp.broadcast_to(jnp.asarray(timestep), x.shape[:1])
        emb = self._embed(style, timestep, class_labels)

        h = make_conv(style, self.block_out_channels[0], "conv_in")(x)
        skips = [h]
        for down in self._down_blocks(style):
            h, left = down(h, emb, train)
            skips += left
        if self.mid_block_type is not None:
            h = self._mid_block(style)(h, emb, train)
        for up in self._up_blocks(style):
            skips, taken = skips[: -self.layers_per_block - 1], skips[-self.layers_per_block - 1 :]
            h = up(h, taken, emb, train)

        h = make_norm(style, "conv_norm_out")(h, nn.silu)
        output = make_conv(style, self.out_channels, "conv_out")(h).astype(jnp.float32)
        if self.time_embedding_type == "fourier":
            output = output / timestep.astype(jnp.float32)[:, None, None, None]
        return output

    @nn.nowrap
    def _check_rng(self, train: bool) -> None:
        if train and self.dropout and not (self.is_initializing() or self.has_rng("dropout")):
            raise ValueError('dropout needs a key: apply(..., train=True, rngs={"dropout": key})')

    @nn.nowrap
    def _style(self) -> Style:
        return Style(
            groups=self.norm_num_groups,
            eps=self.norm_eps,
            activation=ACTIVATIONS[self.act_fn.lower()],
            scale_shift=self.resnet_time_scale_shift == "scale_shift",
            head_dim=self.attention_head_dim,
            dropout=self.dropout,
            dtype=jnp.dtype(self.dtype),
            param_dtype=jnp.dtype(self.param_dtype),
        )

    @nn.nowrap
    def _embed(
        self, style: Style, timestep: Num[Array, " b"], class_labels: ArrayLike | None
    ) -> Float[Array, "b e"]:
        width = self.time_embedding_dim or 4 * self.block_out_channels[0]
        project = self._time_projection(style)
        emb = EmbeddingMLP(style, width, name="time_embedding")(project(timestep))
        if class_labels is None:
            return emb
        labels = jnp.asarray(class_labels)
        if self.class_embed_type is None:
            assert (
                self.num_class_embeds is not None
            )  # or check_inputs would have refused the labels
            table = Embedding(
                self.num_class_embeds, width, style.param_dtype, name="class_embedding"
            )
            labels = table(labels)
        elif self.class_embed_type == "timestep":
            labels = EmbeddingMLP(style, width, name="class_embedding")(project(labels))
        return emb + labels.astype(style.dtype)

    @nn.nowrap
    def _time_projection(self, style: Style) -> Callable[[Num[Array, " b"]], Float[Array, "b d"]]:
        width = self.block_out_channels[0]
        if self.time_embedding_type == "fourier":
            return Fourier(width, style.param_dtype, name="time_proj")
        if self.time_embedding_type == "learned":
            assert self.num_train_timesteps is not None  # the config's check refuses this
            return Embedding(self.num_train_timesteps, width, style.param_dtype, name="time_proj")
        return partial(
            sinusoid,
            width=width,
            flip_sin_to_cos=self.flip_sin_to_cos,
            freq_shift=self.freq_shift,
        )

    @nn.nowrap
    def _down_blocks(self, style: Style) -> Iterator[DownBlock]:
        last = len(self.block_out_channels) - 1
        for i, (name, features) in enumerate(
            zip(self.down_block_types, self.block_out_channels, strict=True)
        ):
            kind = DOWN[plain_name(name)]
            yield DownBlock(
                style,
                features,
                self.layers_per_block,
                kind.attention,
                None if i == last else kind.resampler or self.downsample_type,
                self.downsample_padding,
                name=f"down_blocks.{i}",
            )

    @nn.nowrap
    def _mid_block(self, style: Style) -> MidBlock:
        groups = self.attn_norm_num_groups or (0 if style.scale_shift else style.groups)
        scale = self.mid_block_scale_factor
        return MidBlock(style, self.add_attention, groups, scale, name="mid_block")

    @nn.nowrap
    def _up_blocks(self, style: Style) -> Iterator[UpBlock]:
        last = len(self.block_out_channels) - 1
        for i, (name, features) in enumerate(
            zip(self.up_block_types, self.block_out_channels[::-1], strict=True)
        ):
            kind = UP[plain_name(name)]
            resampler = None if i == last else kind.resampler or self.upsample_type
            yield UpBlock(style, features, kind.attention, resampler, name=f"up_blocks.{i}")

    @nn.nowrap
    def shapes(self) -> dict[str, Any]:
        """The params tree with shapes and dtypes for leaves; nothing is allocated."""
        return jax.eval_shape(self._init, jax.random.key(0))

    @nn.nowrap
    def init_params(self, key: Key[Array, ""] | UInt32[Array, "2"]) -> dict[str, Any]:
        """Fresh params, drawn as torch draws them; no picture is computed."""
        return jax.jit(self._init)(key)

    @nn.nowrap
    def _init(self, key: Array) -> dict[str, Any]:
        side = 2 ** (len(self.block_out_channels) - 1)
        x = jnp.zeros((1, side, side, self.in_channels))
        return self.init(key, x, jnp.ones(()), self._any_labels())["params"]

    @nn.nowrap
    def _any_labels(self) -> Array | None:
        if self.class_embed_type == "identity":
            return jnp.zeros((1, self.time_embedding_dim or 4 * self.block_out_channels[0]))
        if self.class_embed_type == "timestep":
            return jnp.ones(1)
        return None if self.num_class_embeds is None else jnp.zeros(1, jnp.int32)


CONFIG_FIELDS = tuple(
    field.name
    for field in dataclasses.fields(UNet2DModel)
    if field.name not in ("dtype", "param_dtype", "parent", "name")
)
"""The fields that diffusers' config has, in its order."""
