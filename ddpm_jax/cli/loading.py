"""What the commands read of a model before its weights: its configs."""

from collections.abc import Mapping, Sequence
from typing import Any

from ddpm_jax.cli.common import OptionError
from ddpm_jax.hub import hub
from ddpm_jax.hub.component import ComponentFiles
from ddpm_jax.hub.files import read_json
from ddpm_jax.models import UNet2DModel
from ddpm_jax.schedulers import Scheduler


def scheduler_config(model: str, revision: str | None = None) -> dict[str, Any]:
    """The config of a model's scheduler. Raises as `hub.component`."""
    return _config(model, Scheduler.files, revision)


def unet_config(model: str, revision: str | None = None) -> dict[str, Any]:
    """The config of a model's network. Raises as `hub.component`."""
    return _config(model, UNet2DModel.files, revision)


def _config(model: str, files: ComponentFiles, revision: str | None) -> dict[str, Any]:
    folder = hub.component(model, files, revision=revision, weights=False)
    return read_json(folder / files.config)


def check_labels(config: Mapping[str, Any], labels: Sequence[int]) -> None:
    """Refuse labels that a network of this config does not take.

    Raises:
        OptionError: labels are missing, not wanted, or no classes of the model.
    """
    kind, count = config.get("class_embed_type"), config.get("num_class_embeds")
    if kind == "identity":
        raise OptionError("this model's classes are vectors, which --labels cannot give")
    if kind is None and count is None:
        if labels:
            raise OptionError("--labels is for models with classes, and this one has none")
        return
    # A table has as many classes as rows; where labels are embedded like timesteps, any will do.
    classes = range(count) if kind is None and isinstance(count, int) else None
    wanted = "numbers" if classes is None else f"classes from 0 to {classes[-1]}"
    if not labels:
        raise OptionError(f"this model has classes: give --labels, {wanted}")
    wrong = [] if classes is None else sorted(set(labels) - set(classes))
    if wrong:
        raise OptionError(f"--labels takes {wanted}, got {', '.join(map(str, wrong))}")
