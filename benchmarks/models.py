"""The networks that are measured, and the configurations that a run consists of."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

TRAINED_WITH = {
    "layers_per_block": 2,
    "downsample_padding": 0,
    "flip_sin_to_cos": False,
    "freq_shift": 1,
    "norm_eps": 1e-6,
    "norm_num_groups": 32,
    "attention_head_dim": None,
}
"""What all google/ddpm-* checkpoints share; null heads are the paper's: one over all channels."""

MODELS: dict[str, dict[str, Any]] = {
    "cifar10": {  # google/ddpm-cifar10-32, 35,746,307 params
        "sample_size": 32,
        "block_out_channels": (128, 256, 256, 256),
        "down_block_types": ("DownBlock2D", "AttnDownBlock2D", "DownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "UpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
        **TRAINED_WITH,
    },
    "cat256": {  # google/ddpm-cat-256, 113,673,219 params
        "sample_size": 256,
        "block_out_channels": (128, 128, 256, 256, 512, 512),
        "down_block_types": (*["DownBlock2D"] * 4, "AttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "AttnUpBlock2D", *["UpBlock2D"] * 4),
        **TRAINED_WITH,
    },
    "tiny": {  # for the fast mode
        "sample_size": 8,
        "block_out_channels": (8,),
        "down_block_types": ("DownBlock2D",),
        "up_block_types": ("UpBlock2D",),
        **TRAINED_WITH,
        "layers_per_block": 1,
        "norm_num_groups": 4,
    },
}

SCHEDULER = {"beta_schedule": "linear", "beta_start": 1e-4, "beta_end": 0.02, "clip_sample": True}
"""DDIM, as the checkpoints' scheduler configs have it; both libraries get these fields."""

STEPS = 1000
"""Rows of the table, and the most evaluations that one timed window can have."""

BATCHES = {"cpu": {"cifar10": (1, 4, 16)}, "gpu": {"cifar10": (1, 64, 256), "cat256": (4, 16)}}
PRECISIONS = {"cpu": ("float32",), "gpu": ("bfloat16", "float32")}

TARGETS = {1: 1.05, 4: 1.0, 16: 0.88}
"""Our rate over diffusers eager's, by batch: cifar10 in float32 on an idle CPU of two cores."""


@dataclass(frozen=True, kw_only=True)
class Configuration:
    """One network at one batch size and precision.

    Attributes:
        part: "sampling" compares libraries; "costs" takes our own loop apart.
        model: a name in `MODELS`.
        batch: pictures at once.
        precision: of the computation and of the weights.
        device: "cpu" or "gpu".
    """

    part: str
    model: str
    batch: int
    precision: str
    device: str

    def __str__(self) -> str:
        return f"{self.part}: {self.model}, batch {self.batch}, {self.precision}, {self.device}"

    def as_dict(self) -> dict[str, Any]:
        """The fields, for JSON."""
        return asdict(self)


def configurations(
    device: str,
    parts: tuple[str, ...],
    models: tuple[str, ...] | None = None,
    batches: tuple[int, ...] | None = None,
    precisions: tuple[str, ...] | None = None,
) -> Iterator[Configuration]:
    """The run's configurations; what is None is the device's usual choice.

    "costs" is measured at the smallest batch of each model, where a loop's own cost weighs most.
    """
    usual: Mapping[str, tuple[int, ...]] = BATCHES[device]
    for part in parts:
        for model in models or tuple(usual):
            sizes = batches or usual.get(model, (1,))
            for batch in sizes if part == "sampling" else (min(sizes),):
                for precision in precisions or PRECISIONS[device]:
                    yield Configuration(
                        part=part, model=model, batch=batch, precision=precision, device=device
                    )
