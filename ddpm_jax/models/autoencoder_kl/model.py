"""The autoencoder of latent diffusion, as diffusers' `AutoencoderKL` has it, in Flax.

    (1)  mean, log_var = quant_conv(encoder(x)),   z = mean + std noise
    (2)  x             = decoder(post_quant_conv(z))

A diffusion model's latents are `scaling_factor` times z.

Reference: Rombach et al. 2022, arXiv:2112.10752, section 3.1; Kingma & Welling 2014,
arXiv:1312.6114.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Float, Shaped

from ddpm_jax.hub.component import ComponentFiles
from ddpm_jax.models import checks
from ddpm_jax.models.autoencoder_kl.coders import Decoder, Encoder
from ddpm_jax.models.layers.basic import Conv
from ddpm_jax.models.layers.config import ACTIVATIONS
from ddpm_jax.models.layers.plain import Output
from ddpm_jax.models.pretrained import Model
from weights_convert.files import DIFFUSERS

NORM_EPS = 1e-6
"""Of all norms."""
LOG_VAR = (-30.0, 20.0)
"""The log variance is clipped to this interval."""


class Posterior(NamedTuple):
    """A normal distribution of latents, given an image; not yet scaled.

    Attributes:
        mean: (b, h, w, latent_channels).
        std: of the same shape.
    """

    mean: Float[Array, "b h w c"]
    std: Float[Array, "b h w c"]

    def sample(self, noise: Float[Array | np.ndarray, "b h w c"]) -> Float[Array, "b h w c"]:
        """Latents, from standard normal noise."""
        return self.mean + self.std * noise


def posterior(moments: Float[Array | np.ndarray, "b h w c2"]) -> Posterior:
    """The distribution with this mean and log variance, which are halves of the channels."""
    mean, log_var = jnp.split(jnp.asarray(moments), 2, axis=-1)
    return Posterior(mean, jnp.exp(jnp.clip(log_var, *LOG_VAR) / 2))


class AutoencoderKL(Model):
    """Images to latents and back.

    Call its methods as `vae.apply({"params": params}, images, method="encode")`. The fields are
    those of diffusers' config that Stable Diffusion uses, with their defaults; of the others only
    the defaults are accepted.

    Raises:
        ValueError: at construction; lists every fault of the config.
    """

    in_channels: int = 3
    """Channels of the images."""
    out_channels: int = 3
    """Channels of the decoded images."""
    down_block_types: Sequence[str] = ("DownEncoderBlock2D",)
    """One for each resolution."""
    up_block_types: Sequence[str] = ("UpDecoderBlock2D",)
    """One for each resolution."""
    block_out_channels: Sequence[int] = (64,)
    """Channels at each resolution, the finest first."""
    layers_per_block: int = 1
    """Residual blocks at a resolution in the encoder; the decoder has one more."""
    act_fn: str = "silu"
    """Activation of the residual blocks. The output always uses SiLU."""
    latent_channels: int = 4
    """Channels of the latents."""
    norm_num_groups: int = 32
    """Groups of every group norm; must divide every number of channels."""
    sample_size: int | Sequence[int] | None = 32
    """Size of the training images. The network accepts all sizes."""
    scaling_factor: float = 0.18215
    """A diffusion model's latents are this times those of here."""
    force_upcast: bool = True
    """Changes nothing: `dtype` is the caller's choice."""

    files = ComponentFiles(
        folder="vae", config="config.json", classes=("AutoencoderKL",), weights=DIFFUSERS
    )
    fixed_fields: ClassVar[Mapping[str, Any]] = {
        "latents_mean": None,
        "latents_std": None,
        "mid_block_add_attention": True,
        "shift_factor": None,
        "use_post_quant_conv": True,
        "use_quant_conv": True,
    }

    @classmethod
    def _faults(cls, fields: Mapping[str, Any]) -> Iterator[str]:
        counts = (
            "in_channels",
            "out_channels",
            "layers_per_block",
            "latent_channels",
            "norm_num_groups",
        )
        down, up = ("DownEncoderBlock2D",), ("UpDecoderBlock2D",)
        found = [
            *checks.values(fields, choices={}, counts=counts, flags=("force_upcast",)),
            *checks.of_images(fields),
            *checks.blocks(fields, {"down_block_types": down, "up_block_types": up}),
        ]
        scale, groups = fields["scaling_factor"], fields["norm_num_groups"]
        if not (checks.is_number(scale) and scale > 0):
            found.append(f"scaling_factor must be a number above 0, got {scale!r}")
        widths = fields["block_out_channels"]
        if not found and any(width % groups for width in widths):
            found.append(f"norm_num_groups {groups} does not divide all of {widths}")
        yield from found

    @property
    def factor(self) -> int:
        """Pixels of an image in a pixel of the latents, along each axis."""
        return 2 ** (len(self.block_out_channels) - 1)

    def setup(self) -> None:
        """The submodules, under torch's names."""
        config = self._layer_config(
            groups=self.norm_num_groups, eps=NORM_EPS, activation=ACTIVATIONS[self.act_fn.lower()]
        )
        exact, widths = config.exact, tuple(self.block_out_channels)
        layers, moments = self.layers_per_block, 2 * self.latent_channels
        self.encoder = Encoder(config, widths, layers, moments)
        self.decoder = Decoder(config, widths, layers, self.out_channels)
        self.quant_conv = Conv(moments, exact.dtype, exact.param_dtype, size=1)
        self.post_quant_conv = Conv(self.latent_channels, exact.dtype, exact.param_dtype, size=1)

    def encode(self, images: Shaped[Array | np.ndarray, "..."]) -> Posterior:
        """The distribution of an image's latents, equation (1).

        Args:
            images: (b, h, w, in_channels) in [-1, 1], of any size of at least `factor`.

        Returns:
            mean and std, (b, h // factor, w // factor, latent_channels), float32, not scaled.

        Raises:
            ValueError: at trace time, for wrong shapes or dtypes.
        """
        return posterior(self.moments(images))

    def moments(self, images: Shaped[Array | np.ndarray, "..."]) -> Output:
        """The mean and the log variance of an image's latents, which `posterior` takes apart.

        Takes and raises as `encode`; (b, h // factor, w // factor, 2 latent_channels), float32.
        """
        checks.refuse(checks.image(images, self.in_channels, "images"))
        return self.quant_conv(self.encoder(jnp.asarray(images, self.quant_conv.dtype)))

    def decode(self, latents: Shaped[Array | np.ndarray, "..."]) -> Output:
        """Images from latents that are not scaled, equation (2).

        Args:
            latents: (b, h, w, latent_channels).

        Returns:
            (b, factor h, factor w, out_channels), float32, about in [-1, 1] and not clipped.

        Raises:
            ValueError: at trace time, for wrong shapes or dtypes.
        """
        checks.refuse(checks.image(latents, self.latent_channels, "latents"))
        return self.decoder(self.post_quant_conv(jnp.asarray(latents, self.quant_conv.dtype)))

    def __call__(self, images: Shaped[Array | np.ndarray, "..."]) -> Output:
        """`decode` of the mean of `encode`."""
        return self.decode(self.encode(images).mean)

    @nn.nowrap
    def _example_inputs(self) -> tuple[Any, ...]:
        return (jnp.zeros((1, self.factor, self.factor, self.in_channels)),)
