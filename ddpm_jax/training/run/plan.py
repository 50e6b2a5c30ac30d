"""What a run is made of, put together and checked before any long work."""

import dataclasses
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from ddpm_jax.extras import check_installed
from ddpm_jax.hub.class_names import NO_CLASS
from ddpm_jax.hub.component import MODEL_INDEX
from ddpm_jax.images import MODES
from ddpm_jax.models import UNet2DModel
from ddpm_jax.schedulers import DDPMScheduler
from ddpm_jax.training.data import Source, open_source, training_indices
from ddpm_jax.training.objective import Loss
from ddpm_jax.training.run.finetune import Base, fitted, other_process
from ddpm_jax.training.run.guards import WARM
from ddpm_jax.training.run.logs import read_log
from ddpm_jax.training.run.memory import too_large
from ddpm_jax.training.run.settings import Settings
from ddpm_jax.training.sharding import check_batch_size, make_mesh
from ddpm_jax.training.unet_loss import make_loss

SETTINGS_NAME = "settings.json"
CHECKPOINTS = "checkpoints"
PACKAGES = ("filelock", "grain", "matplotlib", "tensorboardX")
"""What a run needs of the extra."""
MAY_CHANGE = {
    "data": {"workers", "skip_unreadable"},
    "loop": {
        "steps", "log_every", "save_every", "keep_last", "keep_best", "sample_every", "sample_num",
        "sample_steps", "sample_scheduler", "eval_every", "divergence", "profile", "fsdp", "remat",
        "steps_per_call",
    },
}  # fmt: skip
"""What may differ in a resumed run: it decides no draw, and of an update at most the rounding."""


@dataclass(frozen=True, eq=False)
class Plan:
    """A run that can begin.

    Attributes:
        settings: all of them.
        out: the run's folder.
        mesh: all devices; 1 x 1 where there is one.
        source: the images.
        model: the network, in the dtype that it computes in.
        scheduler: the forward process.
        loss: the objective with its network.
        base: the model to go on from, or None.
    """

    settings: Settings
    out: Path
    mesh: Mesh
    source: Source
    model: UNet2DModel
    scheduler: DDPMScheduler
    loss: Loss
    base: Base | None

    @property
    def classes(self) -> tuple[str, ...] | None:
        """The names of the network's classes, or None where it has none or they have no names."""
        names = self.source.classes
        if names is not None and self.settings.objective.label_dropout:
            return *names, NO_CLASS
        return names

    def params(self, key: jax.Array) -> tuple[dict[str, Any], list[str]]:
        """The first params, and a sentence for each part that is not the base's."""
        fresh = self.model.init_params(key)
        if self.base is None:
            return fresh, []
        params, news = fitted(self.base, self.model, fresh)
        return params, other_process(self.base, self.settings.diffusion) + news


def make_plan(
    settings: Settings, out: Path, base: Base | None = None, source: Source | None = None
) -> Plan:
    """Opens the data, makes the model and its loss, and checks that they fit together.

    Args:
        settings: of the run.
        out: the run's folder; it is not looked at.
        base: the model to go on from, or None.
        source: by `open_images`. Default: it is opened here.

    Raises:
        ImportError: a package that a run needs is not installed.
        ValueError: all that does not fit.
        OSError: the data cannot be reached.
    """
    loop, data = settings.loop, settings.data
    check_settings(settings)
    source = open_images(settings, base) if source is None else source
    images = len(training_indices(len(source), data.held_out))
    if loop.sample_every and source.shape[-1] not in MODES:
        raise ValueError(
            f"grids of samples have 1, 3 or 4 channels, and {data.name} has {source.shape[-1]}: "
            "set loop.sample_every to 0"
        )
    classes = source.num_classes
    if classes is not None and settings.objective.label_dropout:
        classes += 1  # the last means no class
    config = settings.model.config(source.shape, classes, settings.diffusion)
    model = UNet2DModel(**config, dtype=jnp.dtype(loop.dtype), remat=loop.remat)
    _check_size(model, source.shape)
    scheduler = DDPMScheduler(**dataclasses.asdict(settings.diffusion))
    loss = make_loss(model, scheduler, settings.objective)
    if base is not None:
        fitted(base, model, model.shapes())  # refused now, before there is a folder
    if loop.batch_size > images:
        warnings.warn(
            f"loop.batch_size is {loop.batch_size}, but there are {images} images to train on: "
            "an update sees some of them more than once",
            stacklevel=2,
        )
    mesh = make_mesh(fsdp=loop.fsdp)
    labels, shapes = classes is not None, model.shapes()
    if fault := too_large(loss, shapes, source.shape, loop, devices=mesh.size, labels=labels):
        warnings.warn(fault, stacklevel=2)
    return Plan(settings, out, mesh, source, model, scheduler, loss, base)


def open_images(settings: Settings, base: Base | None = None) -> Source:
    """The images of a run: of as many channels as the base has, unless the settings say.

    Raises ValueError and OSError, as `open_source`.
    """
    data = settings.data
    if base is not None and data.channels is None:
        data = replace(data, channels=base.model.in_channels)
    return open_source(data)


def check_settings(settings: Settings) -> None:
    """What can be known whatever the data.

    Raises:
        ImportError: a package that a run needs is not installed.
        ValueError: settings do not fit together or the devices.
    """
    check_installed(PACKAGES, "training")
    if faults := list(_faults(settings)):
        raise ValueError("; ".join(faults))
    loop = settings.loop
    check_batch_size(loop.batch_size, make_mesh(fsdp=loop.fsdp), accumulate=loop.accumulate)


def _faults(settings: Settings) -> Iterator[str]:
    loop, data, timesteps = settings.loop, settings.data, settings.diffusion.num_train_timesteps
    for name in ("steps", "log_every", "save_every", "sample_every", "eval_every"):
        if getattr(loop, name) % loop.steps_per_call:
            yield (
                f"loop.{name} must be a multiple of loop.steps_per_call = {loop.steps_per_call}, "
                f"got {getattr(loop, name)}"
            )
    if loop.keep_best and not data.held_out:
        yield "loop.keep_best goes by the held-out loss: set data.held_out too"
    if loop.keep_best and loop.save_every % loop.eval_every:
        yield (
            "loop.keep_best needs a loss for each checkpoint: save_every must be a "
            f"multiple of eval_every, got {loop.save_every} and {loop.eval_every}"
        )
    if loop.sample_every and loop.sample_steps > timesteps:
        yield (
            f"loop.sample_steps must be at most diffusion.num_train_timesteps = {timesteps}, "
            f"got {loop.sample_steps}"
        )
    if loop.profile > 0 and loop.steps <= WARM:
        yield f"loop.profile begins after {WARM} updates, and loop.steps is {loop.steps}"
    if settings.objective.label_dropout and not data.labels:
        yield "objective.label_dropout needs labels: set data.labels too"


def check_folder(out: Path, settings: Settings, *, resume: bool) -> None:
    """Whether a run may write there. Of several processes only the first looks: it writes.

    Raises:
        ValueError: the folder holds a run that `resume` does not go on with, or one that began with
            other settings, or has lost its checkpoints; or it holds something else.
    """
    if jax.process_index():
        return
    if (out / SETTINGS_NAME).exists():
        if not _got_anywhere(out):
            return
        if not resume:
            raise ValueError(
                f"{out} holds a run already: resume goes on with it, another folder begins one"
            )
        saved = Settings.load(out / SETTINGS_NAME)
        check_same(saved, settings)
        _check_checkpoints(out, saved.loop.save_every)
    elif (out / CHECKPOINTS).exists():
        raise ValueError(
            f"{out} holds checkpoints, but no {SETTINGS_NAME}: put it back to resume that run, or "
            "take another folder"
        )
    elif out.exists() and not (out.is_dir() and all(p.name.startswith(".") for p in out.iterdir())):
        raise ValueError(f"a run needs a new or an empty folder, got {out}")


def _got_anywhere(out: Path) -> bool:
    """Whether a run left more than its settings; if not, another may replace it."""
    return (
        any((out / CHECKPOINTS).glob("*"))
        or (out / MODEL_INDEX).exists()
        or next(read_log(out), None) is not None
    )


def _check_checkpoints(out: Path, save_every: int) -> None:
    """A run that was killed before its first checkpoint may begin again. One that had checkpoints
    may not: it would overwrite its result.
    """
    if any(path.name.isdigit() for path in (out / CHECKPOINTS).glob("*")):
        return
    logged = max((line["step"] for line in read_log(out)), default=0)
    # orbax completes the first checkpoint before it begins the second.
    if logged > 2 * save_every or (out / MODEL_INDEX).exists():
        raise ValueError(
            f"the run in {out} was at update {logged}, and {out / CHECKPOINTS} holds no checkpoint "
            "to resume from: put one back, or begin another run in another folder"
        )


def check_same(saved: Settings, wanted: Settings) -> None:
    """Refuses to resume a run with other settings than it began with.

    Raises:
        ValueError: listing what differs, but for what `MAY_CHANGE` allows.
    """
    before, now = dataclasses.asdict(saved), dataclasses.asdict(wanted)
    faults = [
        f"{group}.{name} was {before[group][name]}, now {now[group][name]}"
        for group in before
        for name in before[group]
        if before[group][name] != now[group][name] and name not in MAY_CHANGE.get(group, ())
    ]
    if faults:
        raise ValueError(f"the run was begun with other settings: {'; '.join(faults)}")


def _check_size(model: UNet2DModel, shape: tuple[int, int, int]) -> None:
    times = 2 ** (len(model.block_out_channels) - 1)
    if shape[0] % times or shape[1] % times:
        raise ValueError(
            f"images of {shape[0]}x{shape[1]} do not halve {len(model.block_out_channels) - 1} "
            f"times: height and width must be multiples of {times}; set data.resolution, or fewer "
            "model.block_out_channels"
        )
