"""A model's configs, which the commands read before its weights."""

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
    """Check that a network with this config accepts the labels.

    Raises:
        OptionError: labels are missing, not accepted, or not classes of the model.
    """
    kind, count = config.get("class_embed_type"), config.get("num_class_embeds")
    if kind == "identity":
        raise OptionError("this model's classes are vectors, which --labels cannot express")
    if kind is None and count is None:
        if labels:
            raise OptionError("--labels is for models with classes, but this model has none")
        return
    # A table has one row for each class. Labels that are embedded like timesteps have no limit.
    classes = range(count) if kind is None and isinstance(count, int) else None
    wanted = "numbers" if classes is None else f"classes from 0 to {classes[-1]}"
    if not labels:
        raise OptionError(f"this model has classes: pass --labels with {wanted}")
    wrong = [] if classes is None else sorted(set(labels) - set(classes))
    if wrong:
        raise OptionError(f"--labels takes {wanted}, got {', '.join(map(str, wrong))}")
