"""One small checkpoint of each layout: its shapes, the settings that a conversion needs, and the
timesteps and labels that its network is called with.
"""

from typing import Any, NamedTuple

import numpy as np
from weights import foreign_files as foreign


class Case(NamedTuple):
    """A checkpoint and its settings."""

    layout: str
    shapes: dict[str, Any]
    settings: dict[str, Any]
    times: tuple[float, ...] = (3.0, 871.0)
    labels: tuple[int, ...] | None = None

    def state(self) -> foreign.Arrays:
        make = foreign.ddpm_shapes if self.layout == "ddpm" else foreign.openai_shapes
        return foreign.random_state(make(**self.shapes))

    def x(self) -> np.ndarray[Any, Any]:
        """(2, C, 8, 8)."""
        channels = self.shapes.get("channels", (3, 3))[0]
        shape = (2, channels, 8, 8)
        return np.random.default_rng(1).standard_normal(shape).astype(np.float32)


LINEAR = {"sample_size": 8, "beta_schedule": "linear", "num_train_timesteps": 1000}
CASES = {
    "ddpm": Case("ddpm", {}, {"sample_size": 8, "variance_type": "fixed_large"}),
    "legacy": Case(
        "guided",
        {"channels": (3, 6), "scale_shift": True},
        {**LINEAR, "num_heads": 4, "head_order": "legacy"},
    ),
    "new": Case(
        "guided",
        {"channels": (1, 1), "scale_shift": False, "mult": (1, 1), "attends": (0,)},
        {**LINEAR, "num_head_channels": 16, "head_order": "new", "variance_type": "fixed_small"},
    ),
    "consistency": Case(
        "consistency",
        {"by_resnet": True, "classes": 5},
        {"sample_size": 8, "num_head_channels": 16, "num_train_timesteps": 40},
        (1095.5066, -173.2868),
        (4, 0),
    ),
}
