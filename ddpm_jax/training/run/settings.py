"""All settings of a training run, as frozen dataclasses; the command line and files set them.

Their defaults are the CIFAR-10 settings of Ho et al. 2020, arXiv:2006.11239, appendix B; other
presets are in `ddpm_jax.training.run.presets`.
"""

import dataclasses
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias, get_type_hints

from ddpm_jax._typing import PredictionType
from ddpm_jax.hub.files import faults_of, read_json, write_json
from ddpm_jax.schedulers import SchedulerName
from ddpm_jax.schedulers.ddpm import VarianceType
from ddpm_jax.tables.schedules import BetaSchedule
from ddpm_jax.training.data import Data
from ddpm_jax.training.ema import Ema
from ddpm_jax.training.group import Group
from ddpm_jax.training.objective import Objective
from ddpm_jax.training.optimizer import Optimizer

Dtype: TypeAlias = Literal["float32", "bfloat16"]


@dataclass(frozen=True, kw_only=True)
class Model(Group):
    """The network: the fields of `UNet2DModel`, except those that the data decides."""

    down_block_types: tuple[str, ...] = ("DownBlock2D", "AttnDownBlock2D", *("DownBlock2D",) * 2)
    """One name for each resolution, the finest first; Attn... has self-attention."""
    mid_block_type: str | None = "UNetMidBlock2D"
    """None: no middle block."""
    up_block_types: tuple[str, ...] = (*("UpBlock2D",) * 2, "AttnUpBlock2D", "UpBlock2D")
    """One name for each resolution, the coarsest first."""
    block_out_channels: tuple[int, ...] = (128, 256, 256, 256)
    """Channels at each resolution, the finest first."""
    layers_per_block: int = 2
    """Residual blocks in a down block; an up block has one more."""
    dropout: float = 0.1
    """Dropout rate of the residual blocks, in [0, 1)."""
    attention_head_dim: int | None = None
    """Channels of one head; None: one head over all channels."""
    add_attention: bool = True
    """Self-attention in the middle block."""
    act_fn: str = "silu"
    """Activation: silu, swish, mish, gelu or relu."""
    norm_num_groups: int | None = 32
    """Groups of every group norm; divides every number of channels. None: only for Skip blocks."""
    attn_norm_num_groups: int | None = None
    """Groups of the middle attention's norm; None: norm_num_groups, or no norm with scale_shift."""
    norm_eps: float = 1e-6
    """Added to the variance in every group norm."""
    resnet_time_scale_shift: Literal["default", "scale_shift"] = "default"
    """What the time embedding does: it is added, or it scales and shifts."""
    mid_block_scale_factor: float = 1.0
    """The middle block's sums are divided by it."""
    downsample_padding: int = 0
    """Padding before a strided convolution. 1: on all sides; 0: right and bottom only."""
    downsample_type: Literal["conv", "resnet"] = "conv"
    """How blocks with attention halve the resolution."""
    upsample_type: Literal["conv", "resnet"] = "conv"
    """How blocks with attention double the resolution."""
    time_embedding_type: Literal["positional", "learned"] = "positional"
    """How a timestep is embedded: by sines and cosines, or by a table that is trained."""
    time_embedding_dim: int | None = None
    """Width of the time embedding; None: four times the first of the channels."""
    freq_shift: float = 1.0
    """1 for the frequencies of DDPM, 0 for those of improved DDPM."""
    flip_sin_to_cos: bool = False
    """The cosines of the time embedding come first."""
    center_input_sample: bool = False
    """Compute 2 x - 1 of the input first."""

    def _faults(self) -> Iterator[str]:
        """What `UNet2DModel` accepts but never finishes to build."""
        yield from self._at_most(layers_per_block=1000)

    def config(
        self, shape: tuple[int, int, int], classes: int | None, diffusion: "Diffusion"
    ) -> dict[str, Any]:
        """A `UNet2DModel`'s config for images (H, W, C) in some number of classes."""
        height, width, channels = shape
        return {
            **dataclasses.asdict(self),
            "sample_size": height if height == width else (height, width),
            "in_channels": channels,
            "out_channels": channels * (2 if diffusion.variance_type.startswith("learned") else 1),
            "num_class_embeds": classes,
            "num_train_timesteps": (
                diffusion.num_train_timesteps if self.time_embedding_type == "learned" else None
            ),
        }


@dataclass(frozen=True, kw_only=True)
class Diffusion(Group):
    """The forward process and what the network predicts: fields of `DDPMScheduler`."""

    num_train_timesteps: int = 1000
    """Number of timesteps of the forward process."""
    beta_schedule: BetaSchedule = "linear"
    """How the betas grow from the first timestep to the last."""
    beta_start: float = 1e-4
    """beta of the first timestep, in (0, 1)."""
    beta_end: float = 0.02
    """beta of the last timestep, in (0, 1)."""
    prediction_type: PredictionType = "epsilon"
    """What the network predicts: the noise, the clean image, or v."""
    variance_type: VarianceType = "fixed_large"
    """Variance of a DDPM sampling step. With a learned one the network has twice the channels."""
    clip_sample: bool = True
    """Sampling clips the predicted image to [-1, 1]."""
    rescale_betas_zero_snr: bool = False
    """Rescale the betas so that the last timestep has no signal; not with epsilon."""

    def _faults(self) -> Iterator[str]:
        yield from self._at_least(num_train_timesteps=1)
        if not 0 < self.beta_start <= self.beta_end < 1:
            yield (
                "beta_start and beta_end must lie in (0, 1), the first not above the second, "
                f"got {self.beta_start} and {self.beta_end}"
            )


@dataclass(frozen=True, kw_only=True)
class Loop(Group):
    """The run itself: how long, how large, and what is written when. Counts are of updates."""

    steps: int = 800_000
    """Total number of updates."""
    batch_size: int = 128
    """Images in an update, over all devices."""
    accumulate: int = 1
    """Parts that a batch is computed in, to save memory; divides the batch size."""
    steps_per_call: int = 1
    """Updates in one compiled call; more saves time where an update takes a few milliseconds."""
    seed: int = 0
    """Seed of the first params, the order of the images and all noise."""
    dtype: Dtype = "float32"
    """Dtype of the network's computation; its params are float32."""
    remat: bool = False
    """Compute blocks again in the backward pass: less memory on a GPU, a third more time."""
    fsdp: int = 1
    """Devices that share the params and the optimizer state; the rest are data-parallel."""
    log_every: int = 100
    """Updates between lines in log.jsonl and TensorBoard."""
    save_every: int = 5000
    """Updates between checkpoints to resume from."""
    keep_last: int = 2
    """Newest checkpoints that are kept."""
    keep_best: int = 0
    """Checkpoints with the lowest held-out loss that are kept too; needs held-out images."""
    sample_every: int = 5000
    """Updates between grids of samples from the moving average; 0: no grids."""
    sample_num: int = 36
    """Images in the grid, always from the same keys."""
    sample_steps: int = 50
    """Inference steps for the grid."""
    sample_scheduler: SchedulerName = "ddpm"
    """The sampler of the grid. After a short training ddim shows noise where ddpm shows images."""
    eval_every: int = 5000
    """Updates between losses of held-out images, if there are some."""
    divergence: float = 10.0
    """Stop when the mean loss of 50 updates is this many times the lowest such mean; 0: never."""
    profile: int = 0
    """Updates of which a trace is written, after the first ten; 0: none."""

    def _faults(self) -> Iterator[str]:
        yield from self._at_least(steps=1, batch_size=1, accumulate=1, steps_per_call=1, seed=0)
        yield from self._at_least(fsdp=1, log_every=1, save_every=1, keep_last=1, keep_best=0)
        yield from self._at_least(sample_every=0, sample_num=1, sample_steps=1, eval_every=1)
        yield from self._at_least(profile=0)
        if self.divergence != 0 and self.divergence <= 1:
            yield f"divergence must be 0, or above 1, got {self.divergence}"
        if self.batch_size >= 1 and self.accumulate >= 1 and self.batch_size % self.accumulate:
            yield f"accumulate must divide batch_size, got {self.accumulate} and {self.batch_size}"
        if self.seed >= 2**32:
            yield f"seed must be below 2**32, got {self.seed}"


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Everything that decides a run."""

    data: Data = field(default_factory=Data)
    """The images."""
    model: Model = field(default_factory=Model)
    """The network."""
    diffusion: Diffusion = field(default_factory=Diffusion)
    """The forward process."""
    objective: Objective = field(default_factory=Objective)
    """The loss."""
    optimizer: Optimizer = field(default_factory=Optimizer)
    """Adam."""
    ema: Ema = field(default_factory=Ema)
    """The moving average."""
    loop: Loop = field(default_factory=Loop)
    """The run."""

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes a JSON file, one object for each group."""
        write_json(path, dataclasses.asdict(self))

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "Settings":
        """Reads a file that `save` wrote; missing ones have their defaults.

        Raises:
            ValueError: no such file, unknown groups or fields, or values that are refused.
        """
        content = read_json(path)
        groups = get_type_hints(cls)
        with faults_of(path):
            _check_names("group", content, groups)
            return cls(**{name: _read(groups[name], name, content[name]) for name in content})


def _read(group: Any, name: str, content: Any) -> Any:
    if not isinstance(content, Mapping):
        raise ValueError(f"{name} must be an object, got {content!r}")
    fields = get_type_hints(group)
    _check_names(f"field of {name}", content, fields)
    # JSON has no tuples.
    values = {key: tuple(v) if isinstance(v, list) else v for key, v in content.items()}
    return group(**values)


def _check_names(kind: str, got: Mapping[str, Any], known: Mapping[str, Any]) -> None:
    unknown = sorted(set(got) - set(known))
    if unknown:
        raise ValueError(f"no {kind} is called {', '.join(unknown)}; there are {', '.join(known)}")
