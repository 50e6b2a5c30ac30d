"""The UNet of Ho et al., as diffusers' `UNet2DModel` has it, in Flax.

    emb    = mlp(time_proj(timestep)) [+ class embedding]
    skips  = conv_in(x), then the skips of every down block
    h      = up_blocks(mid_block(down_blocks(conv_in(x), emb), emb), skips, emb)
    output = conv_out(silu(norm(h)))

Blocks of NCSN++ also pass an image along on each of the two ways, and the output is

    output = conv_out(silu(norm(h))) + image

With a fourier time embedding the timestep is sigma, and the output is divided by it.

Parameters have torch's names: `params["down_blocks.0"]["resnets.0"]["conv1"]["kernel"]`.

Reference: Ho et al. 2020, arXiv:2006.11239; Song et al. 2021, arXiv:2011.13456 (fourier, NCSN++).
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax.typing import ArrayLike
from jaxtyping import Array, Shaped

from ddpm_jax.hub.class_names import CLASS_NAMES
from ddpm_jax.hub.component import MODEL_INDEX, ComponentFiles
from ddpm_jax.models.layers.config import ACTIVATIONS
from ddpm_jax.models.layers.plain import Image
from ddpm_jax.models.layers.unet_blocks import begin, end
from ddpm_jax.models.layers.unet_path import through
from ddpm_jax.models.pretrained import Model
from ddpm_jax.models.unet_2d import config as unet_config
from ddpm_jax.models.unet_2d import parts
from ddpm_jax.models.unet_2d.inputs import check_inputs
from weights_convert.files import DIFFUSERS
from weights_convert.layouts import prerelease
from weights_convert.names import OLD_UNET_FIELDS

FILES = ComponentFiles(
    folder="unet",
    config="config.json",
    classes=("UNet2DModel", "UNetUnconditionalModel"),  # the latter: before diffusers 0.3
    weights=DIFFUSERS,
    companions=(MODEL_INDEX, CLASS_NAMES),
)


class UNet2DModel(Model):
    """(x, timestep) to an output with the shape of x: the noise, x0 or v, as in its training.

    Call it as `model.apply({"params": params}, x, timestep)`. The fields are those of diffusers'
    config, with its defaults. No config file has `dtype`, `param_dtype` and `remat`.

    Raises:
        ValueError: at construction; lists every fault of the config.
    """

    sample_size: int | Sequence[int] | None = None
    """Size of the training images. The network accepts all sizes that it can halve evenly."""
    in_channels: int = 3
    """Channels of x."""
    out_channels: int = 3
    """Channels of the output; with a learned variance twice those of x."""
    center_input_sample: bool = False
    """Rescale x to 2 x - 1 first."""
    time_embedding_type: str = "positional"
    """One of "positional", "fourier", "learned"."""
    time_embedding_dim: int | None = None
    """Width of the time embedding; None: four times the first of `block_out_channels`."""
    freq_shift: float = 0
    """Positional: 1 for the frequencies of DDPM, 0 for improved DDPM."""
    flip_sin_to_cos: bool = True
    """Positional: cosines first."""
    down_block_types: Sequence[str] = ("DownBlock2D", *("AttnDownBlock2D",) * 3)
    """One name for each resolution, the finest first."""
    mid_block_type: str | None = "UNetMidBlock2D"
    """None: no middle block."""
    up_block_types: Sequence[str] = (*("AttnUpBlock2D",) * 3, "UpBlock2D")
    """One name for each resolution, the coarsest first."""
    block_out_channels: Sequence[int] = (224, 448, 672, 896)
    """Channels at each resolution, the finest first."""
    layers_per_block: int = 2
    """Residual blocks in a down block; an up block has one more."""
    mid_block_scale_factor: float = 1
    """Divisor of the sums in the middle block."""
    downsample_padding: int = 1
    """1: on all sides; 0: right and bottom only."""
    downsample_type: str = "conv"
    """For blocks with attention: "conv" or "resnet". Other block types define their own."""
    upsample_type: str = "conv"
    """For blocks with attention: "conv" or "resnet". Other block types define their own."""
    dropout: float = 0.0
    """Dropout rate of the residual blocks in training, in [0, 1)."""
    act_fn: str = "silu"
    """Activation of the residual blocks. Time embedding and output always use SiLU."""
    attention_head_dim: int | None = 8
    """Channels of one head; None: one head over all channels."""
    norm_num_groups: int | None = 32
    """Groups of every group norm outside Skip blocks; must divide every number of channels there.
    None, where all blocks are Skip blocks: min(channels // 4, 32), which they have inside."""
    attn_norm_num_groups: int | None = None
    """Groups of the middle attention's norm; None: `norm_num_groups`, or no norm with
    "scale_shift"."""
    norm_eps: float = 1e-5
    """Added to the variance in every group norm."""
    resnet_time_scale_shift: str = "default"
    """How the time embedding enters: "default" (it is added) or "scale_shift"."""
    add_attention: bool = True
    """Attention in the middle block."""
    class_embed_type: str | None = None
    """None, "timestep" (embedded like one) or "identity" (labels are embeddings)."""
    num_class_embeds: int | None = None
    """Rows of a learned class table, if `class_embed_type` is None."""
    num_train_timesteps: int | None = None
    """Rows of a learned time table."""
    remat: bool = False
    """Saves memory in training and costs time: the backward pass recomputes the inside of residual
    blocks and attentions instead of storing it. Sampling does not change. On a CPU, XLA may undo
    it, and then it saves no memory."""

    files = FILES
    runtime_fields = (*Model.runtime_fields, "remat")
    renamed_fields = OLD_UNET_FIELDS
    converted_classes = (prerelease.CLASS,)

    @classmethod
    def _faults(cls, fields: Mapping[str, Any]) -> Iterator[str]:
        return unet_config.faults(fields)

    @nn.nowrap
    def denoise(self, params: Any, x: Image, timestep: ArrayLike) -> Image:
        """The network for `ddpm_jax.sample`: sample(model.denoise, params, table, x_T, keys).

        For a model without classes; with them, write such a function that also passes labels. It is
        compared by the model object: keep one model.

        Args:
            params: of this model.
            x: (b, h, w, in_channels) noisy images.
            timestep: a scalar or (b,).
        """
        output = self.apply({"params": params}, x, timestep)
        return cast(Array, output)  # apply returns a pair only for mutable collections

    @nn.nowrap
    def training_faults(self, scheduler: Any) -> list[str]:
        """A sentence for each reason why this model cannot be trained under a scheduler.

        Args:
            scheduler: a `DDPMScheduler`, for the forward process and the prediction type.
        """
        return list(unet_config.training_faults(self, scheduler))

    def __call__(
        self,
        x: Shaped[Array | np.ndarray, "..."],
        timestep: ArrayLike,
        class_labels: ArrayLike | None = None,
        train: bool = False,
    ) -> Image:
        """Evaluate the network.

        Args:
            x: noisy images (b, h, w, in_channels), floats.
            timestep: a scalar or (b,), integer or float. Only a learned embedding rounds it, and
                returns NaN outside its table.
            class_labels: (b,) integers for a learned class table (NaN outside it), (b,) numbers for
                "timestep", (b, time_embedding_dim) floats for "identity"; None without classes.
            train: use dropout, which needs `rngs={"dropout": key}`.

        Returns:
            (b, h, w, out_channels), always float32.

        Raises:
            ValueError: at trace time, for wrong shapes or dtypes, missing labels, or labels for a
                model without classes.
            TypeError: it is called as a function: a model has no params.
        """
        self._check_bound("x, timestep", "x, timestep, class_labels")
        return self._evaluate(x, timestep, class_labels, train)

    @nn.compact
    def _evaluate(
        self, x: Any, timestep: ArrayLike, class_labels: ArrayLike | None, train: bool
    ) -> Image:
        config = self.config
        check_inputs(config, x, timestep, class_labels)
        layer = self._layer_config(
            groups=self.norm_num_groups,
            eps=self.norm_eps,
            activation=ACTIVATIONS[self.act_fn.lower()],
            scale_shift=self.resnet_time_scale_shift == "scale_shift",
            head_dim=self.attention_head_dim,
            dropout=self.dropout if train else 0.0,
            train=train,
            remat=self.remat,
        )
        x = jnp.asarray(x, layer.exact.dtype)
        x = 2 * x - 1 if self.center_input_sample else x
        timestep = jnp.broadcast_to(jnp.asarray(timestep), x.shape[:1])
        emb = parts.embed(config, layer.exact, timestep, class_labels)

        h = begin(layer, x, self.block_out_channels[0])
        h, image = through(
            h,
            x,
            emb,
            None,
            down=parts.down_blocks(config, layer),
            mid=None if self.mid_block_type is None else parts.mid_block(config, layer),
            up=parts.up_blocks(config, layer),
        )
        output = end(layer, h, self.out_channels, nn.silu)
        output = output if image is None else output + image
        if self.time_embedding_type == "fourier":
            output = output / timestep.astype(jnp.float32)[:, None, None, None]
        return output

    @nn.nowrap
    def _example_inputs(self) -> tuple[Any, ...]:
        side = 2 ** (len(self.block_out_channels) - 1)  # the smallest image
        x = jnp.zeros((1, side, side, self.in_channels))
        return x, jnp.ones(()), parts.some_labels(self.config)
