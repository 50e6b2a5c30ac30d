"""Networks in Flax."""

from ddpm_jax.models.autoencoder_kl.model import AutoencoderKL as AutoencoderKL
from ddpm_jax.models.autoencoder_kl.model import Posterior as Posterior
from ddpm_jax.models.autoencoder_kl.tiling import decode_tiled as decode_tiled
from ddpm_jax.models.autoencoder_kl.tiling import encode_tiled as encode_tiled
from ddpm_jax.models.clip.safety import (
    StableDiffusionSafetyChecker as StableDiffusionSafetyChecker,
)
from ddpm_jax.models.clip.text import CLIPTextModel as CLIPTextModel
from ddpm_jax.models.dpt.model import DPTForDepthEstimation as DPTForDepthEstimation
from ddpm_jax.models.pretrained import Model as Model
from ddpm_jax.models.unet_2d.model import UNet2DModel as UNet2DModel
from ddpm_jax.models.unet_2d_condition.model import UNet2DConditionModel as UNet2DConditionModel

__all__ = [
    "AutoencoderKL",
    "CLIPTextModel",
    "DPTForDepthEstimation",
    "Model",
    "Posterior",
    "StableDiffusionSafetyChecker",
    "UNet2DConditionModel",
    "UNet2DModel",
    "decode_tiled",
    "encode_tiled",
]
