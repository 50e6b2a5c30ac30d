"""Checkpoints of lucidrains/denoising-diffusion-pytorch (`model-N.pt`), which are not read.

Its UNet is another network than `UNet2DModel` in nearly every layer: linear attention, norms after
the convolutions, a first convolution of 7x7, strided pixels in place of strided convolutions, a
skip from the first layer to the last, two skips a level.
"""

from weights_convert.layouts.base import UNetLayout

LUCIDRAINS = UNetLayout(
    name="lucidrains",
    title="a UNet of lucidrains' denoising-diffusion-pytorch",
    marks=(
        r"(model\.)?init_conv\.weight",
        r"(model\.)?downs\.\d+\.\d+\..+",
        r"(model\.)?mid_block1\..+",
    ),
    refusal=(
        "UNet2DModel cannot express it (linear attention, attention without a group norm or with "
        "memory tokens, norms after the convolutions, which may be weight-standardized, a first "
        "convolution of 7x7, a skip from the first layer to the last)"
    ),
)
