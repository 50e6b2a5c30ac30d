"""What the commands read of a model before its weights: its configs."""

from typing import Any

from ddpm_jax import hub
from ddpm_jax.config import read_json


def scheduler_config(model: str, revision: str | None = None) -> dict[str, Any]:
    """The config of a model's scheduler. Raises as `hub.component`."""
    folder = hub.component(model, "scheduler", revision=revision)
    return read_json(folder / hub.CONFIG["scheduler"])


def unet_config(model: str, revision: str | None = None) -> dict[str, Any]:
    """The config of a model's network. Raises as `hub.component`."""
    folder = hub.component(model, "unet", revision=revision, weights=False)
    return read_json(folder / hub.CONFIG["unet"])
