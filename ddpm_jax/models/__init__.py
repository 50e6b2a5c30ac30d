"""Networks in Flax."""

from ddpm_jax.models.unet_2d.model import UNet2DModel as UNet2DModel

__all__ = ["UNet2DModel"]
