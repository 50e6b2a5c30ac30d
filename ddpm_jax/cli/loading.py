"""A model's configs, which the commands read and check before its weights."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ddpm_jax.cli.common import OptionError, option_errors
from ddpm_jax.hub import class_names, hub, pipeline_folder
from ddpm_jax.hub.component import MODEL_INDEX
from ddpm_jax.hub.config import SCORE_FAMILY, Config, check_family
from ddpm_jax.hub.files import faults_of, listed, read_json
from ddpm_jax.models import UNet2DModel
from ddpm_jax.pipelines.base import supported_class
from ddpm_jax.pipelines.inputs import check_channels
from ddpm_jax.pipelines.stable_diffusion import StableDiffusion
from ddpm_jax.pipelines.unconditional import (
    DDPMPipeline,
    ScoreSdeVePipeline,
    UnconditionalPipeline,
)
from ddpm_jax.schedulers import Scheduler

DEFAULT = "default"
"""The value of --scheduler-config for the schedulers' own defaults."""


def scheduler_config(
    model: str | None, revision: str | None = None, given: str | None = None
) -> dict[str, Any]:
    """The config of a model's scheduler.

    Args:
        model: a model's name. A network alone, such as a checkpoint of a training run, may have
            its scheduler in the folder above it.
        revision: of a model on the hub.
        given: the value of --scheduler-config, which replaces the model's: a name with a scheduler,
            a JSON file, or "default".

    Raises:
        OptionError: there is none, neither with the model nor given.
        ValueError: as `hub.component`.
    """
    if given == DEFAULT:
        return {}
    if given is not None:
        if Path(given).is_file():
            return read_json(given)
        folder = hub.component(given, Scheduler.files, weights=False)
        return read_json(folder / Scheduler.files.config)
    assert model is not None
    return read_json(_scheduler_file(model, revision))


class Network(NamedTuple):
    """A model's network before its weights are read.

    Attributes:
        config: of the network.
        names: the names of its classes by number; empty if they have none.
        pipeline: that samples it with any scheduler.
    """

    config: Config
    names: dict[int, str]
    pipeline: type[UnconditionalPipeline]


def located(
    model: str, revision: str | None = None
) -> tuple[Path, pipeline_folder.ModelIndex | None]:
    """The folder of a model's network with its config, and the index of its pipeline; None for a
    network alone. No weights are fetched.

    Raises:
        ValueError: as `hub.component`, or the index is damaged.
    """
    files = UNet2DModel.files
    folder = hub.component(model, files, revision=revision, weights=False)
    root = hub.root_of(folder, files)
    index = pipeline_folder.read(root) if (root / MODEL_INDEX).is_file() else None
    return folder, index


def read_network(
    model: str, revision: str | None, kind: type[Scheduler], hint: str = "pass --prompt"
) -> Network:
    """The config of a model's network, which `kind` can sample, and its classes' names.

    Raises:
        OptionError: the model needs prompts; the message ends in `hint`.
        ValueError: the model is a pipeline or has components that are not supported, or its
            network predicts something else than its input; otherwise as `hub.component`.
    """
    files = UNet2DModel.files
    folder, content = located(model, revision)
    unit = kind.family == SCORE_FAMILY
    if content is not None:
        named = supported_class(content)
        unit = issubclass(named, ScoreSdeVePipeline)
        if issubclass(named, StableDiffusion):
            raise OptionError(f"{model} makes images from prompts: {hint}")
        pipeline_folder.check(content, [files, Scheduler.files])
        with faults_of(content.path):
            found = content.components.get(Scheduler.files.folder)
            check_family(found, kind.__name__, kind.family)
    config = UNet2DModel.read_model(folder).config
    with faults_of(folder / files.config):
        check_channels(config)
    names = class_names.read(hub.root_of(folder, files))
    return Network(config, names, ScoreSdeVePipeline if unit else DDPMPipeline)


def _scheduler_file(model: str, revision: str | None) -> Path:
    """Where the scheduler's config is, or OptionError."""
    files = Scheduler.files
    try:
        return hub.component(model, files, revision=revision, weights=False) / files.config
    except ValueError as error:
        above = Path(model).absolute().parent / files.folder / files.config
        if not Path(model).is_dir():
            raise
        if above.is_file():
            return above
        raise OptionError(
            f"{error}; if this is a network alone, pass --scheduler-config: a folder or file with "
            f'its scheduler, or "{DEFAULT}"'
        ) from error


def classes_of(network: Network, labels: Sequence[str]) -> tuple[int, ...]:
    """The classes that are drawn in turn, as numbers.

    Args:
        network: the configs of a model.
        labels: numbers or names; empty for all classes but the one that means no class.

    Raises:
        OptionError: labels are missing, not accepted, or not classes of the model.
    """
    kind, count = network.config.class_embed_type, network.config.num_class_embeds
    if kind == "identity":
        raise OptionError("this model's classes are vectors, which --labels cannot express")
    if kind is None and count is None:
        if labels:
            raise OptionError("--labels is for models with classes, but this model has none")
        return ()
    # A table has one row for each class. Labels that are embedded like timesteps have no limit.
    classes = range(count or 0) if kind is None else None
    if not labels:
        if classes is None:
            raise OptionError("this model has classes: pass --labels with numbers")
        return tuple(one for one in classes if one != class_names.no_class(network.names))
    with option_errors():
        numbers = class_names.numbers_of(labels, network.names)
    wrong = [] if classes is None else sorted(set(numbers) - set(classes))
    if wrong:
        known = class_names.in_words(network.names) or f"classes from 0 to {len(classes or ()) - 1}"
        raise OptionError(f"--labels takes {known}; got {listed(wrong)}")
    return tuple(numbers)


def no_class_of(network: Network) -> int:
    """The class that guidance moves away from. OptionError if guidance is not possible."""
    found = class_names.no_class(network.names)
    if found is None:
        raise OptionError(
            "guidance is for models that were trained with --objective.label-dropout, but this "
            "model has no class that means no class"
        )
    return found
