"""The unconditional UNet, diffusers' `UNet2DModel`."""
