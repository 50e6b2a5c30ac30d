"""The network of a configuration, and what a runner finds in its folder."""

from pathlib import Path
from typing import Any

from benchmarks.contenders import PARTS
from benchmarks.models import MODELS, Configuration


def network_config(configuration: Configuration) -> dict[str, Any]:
    """The config of a `UNet2DModel`, ours or diffusers'."""
    if PARTS[configuration.part].task == "sampling":
        return MODELS[configuration.model]
    from benchmarks import training_models

    return training_models.network_config(configuration.model)


def furnish(configuration: Configuration, folder: Path) -> None:
    """Writes what training needs beside weights and noise: the run's settings, and pictures."""
    if PARTS[configuration.part].task == "training":
        from benchmarks import training_models

        training_models.furnish(configuration, folder)
