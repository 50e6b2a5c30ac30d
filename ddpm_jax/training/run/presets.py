"""Settings by name: the papers' for CIFAR-10 and 256x256 faces, and small ones for a CPU.

cifar10 and celebahq256 are Ho et al. 2020, arXiv:2006.11239, appendix B (800,000 and 500,000
updates), with the architectures of google/ddpm-cifar10-32 and google/ddpm-celebahq-256. tiny is
what the bundled digits were trained with. photos is for any photos on two cores, with attention at
a quarter of the resolution only, where it costs little.
"""

from dataclasses import replace

from ddpm_jax.training.data import Data
from ddpm_jax.training.ema import Ema
from ddpm_jax.training.optimizer import Optimizer
from ddpm_jax.training.run.settings import Diffusion, Loop, Model, Settings

CIFAR10 = Settings(data=Data(name="uoft-cs/cifar10", resolution=32, flip=True))

CELEBAHQ256 = Settings(
    data=Data(name="korexyz/celeba-hq-256x256", resolution=256, flip=True),
    model=Model(
        down_block_types=(*("DownBlock2D",) * 4, "AttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "AttnUpBlock2D", *("UpBlock2D",) * 4),
        block_out_channels=(128, 128, 256, 256, 512, 512),
        dropout=0.0,
    ),
    diffusion=Diffusion(variance_type="fixed_small"),
    optimizer=Optimizer(learning_rate=2e-5),
    loop=Loop(steps=500_000, batch_size=64, sample_num=16),
)

TINY = Settings(
    data=Data(name="digits"),
    model=Model(
        down_block_types=("DownBlock2D", "AttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
        block_out_channels=(32, 64, 64),
        dropout=0.0,
    ),
    diffusion=Diffusion(variance_type="fixed_small"),
    optimizer=Optimizer(learning_rate=1e-3, warmup_steps=200, decay="cosine"),
    ema=Ema(decay=0.999, power=0.75),
    loop=Loop(
        steps=6_000,
        batch_size=64,
        log_every=50,
        save_every=1000,
        sample_every=1000,
        eval_every=1000,
    ),
)

PHOTOS = replace(
    TINY,
    data=Data(name="photos/", resolution=32, flip=True),
    model=replace(
        TINY.model,
        down_block_types=("DownBlock2D", "DownBlock2D", "AttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "AttnUpBlock2D", "UpBlock2D", "UpBlock2D"),
        block_out_channels=(32, 64, 96, 128),
    ),
    optimizer=Optimizer(learning_rate=5e-4, warmup_steps=500, decay="cosine"),
    ema=Ema(decay=0.9995, power=0.75),
    loop=replace(TINY.loop, steps=10_000, batch_size=16, save_every=500, sample_every=500),
)

PRESETS: dict[str, Settings] = {
    "cifar10": CIFAR10,
    "celebahq256": CELEBAHQ256,
    "tiny": TINY,
    "photos": PHOTOS,
}
"""By name: "cifar10" and "celebahq256" as in the papers, for GPUs; the others for a CPU."""
