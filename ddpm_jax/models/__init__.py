"""Networks in Flax."""

from ddpm_jax.models.pretrained import Model as Model
from ddpm_jax.models.unet_2d.model import UNet2DModel as UNet2DModel

__all__ = ["Model", "UNet2DModel"]
