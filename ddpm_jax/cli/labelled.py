"""`ddpm-jax sample` without prompts: what is made, and by which pipeline."""

from typing import TYPE_CHECKING

import jax.numpy as jnp

from ddpm_jax.cli.devices import Devices, local_devices
from ddpm_jax.cli.drawing import LabelDrawing, default_batch_size
from ddpm_jax.cli.fingerprint import fingerprint
from ddpm_jax.cli.given_images import given_images, upscaled
from ddpm_jax.cli.job import Job
from ddpm_jax.cli.loading import classes_of, no_class_of, read_network, scheduler_config
from ddpm_jax.cli.output import no_more
from ddpm_jax.models import UNet2DModel
from ddpm_jax.pipelines.from_image import STRENGTH
from ddpm_jax.pipelines.inputs import image_shape

if TYPE_CHECKING:
    from ddpm_jax.cli.sample import Sample
    from ddpm_jax.schedulers import Scheduler


def job(given: "Sample", model: str) -> Job:
    """The run of a model without prompts.

    Raises:
        OptionError: an option is refused for this model.
        ValueError: the model does not exist.
    """
    config = scheduler_config(model, given.revision, given.scheduler_config)
    network = read_network(model, given.revision, given.kind(config))
    scheduler = given.make(config)
    images = given_images(given, STRENGTH if given.mask is None else 1.0)
    if given.upscale is not None:
        images = upscaled(given.upscale, network)
    table = given.table(scheduler, model, images.start)
    labels = classes_of(network, given.labels)
    scale = given.guidance or 1.0
    negative = no_class_of(network) if scale > 1 else None

    def drawing(count: int) -> LabelDrawing:
        # A guide measures the whole batch, so its run is not split.
        devices = Devices() if "guide" in images.options else local_devices()
        unet, params = UNet2DModel.from_pretrained(
            model,
            revision=given.revision,
            variant=given.variant,
            dtype=jnp.dtype(given.dtype),
            sharding=devices.whole,
        )
        height, width, _ = image_shape(unet)
        guidance = {
            "guidance_scale": scale,
            "guidance_interval": given.guidance_interval,
            "negative_labels": negative,
        }
        each = default_batch_size(height, width)
        return LabelDrawing(
            pipe=network.pipeline(unet=unet, params=params, scheduler=scheduler),
            table=table,
            seed=given.seed,
            labels=labels,
            options=guidance | images.options,
            batch_size=devices.batch_size(given.batch_size, each, count),
            every=given.save_every,
            split=devices.split,
        )

    settings = _settings(given, model, scheduler, labels) | {
        name: str(value) for name, value in images.settings.items()
    }
    return Job(
        total=16 if given.num is None else given.num,
        settings=settings,
        each=no_more,
        drawing=drawing,
        channels=network.config["in_channels"],
        classes=labels,
    )


def _settings(
    given: "Sample", model: str, scheduler: "Scheduler", labels: tuple[int, ...]
) -> dict[str, str]:
    """All settings that determine an image's pixels, except its index, as text by name."""
    found = {
        "model": model,
        "revision": given.revision,
        "variant": given.variant,
        **fingerprint(model, given.revision, given.variant),
        **given.settings(scheduler, model),
        "seed": given.seed,
        "labels": " ".join(map(str, labels)) or None,
        "guidance": given.guidance,
        "guidance_interval": given.guidance_interval,
        "dtype": given.dtype,
    }
    return {name: str(value) for name, value in found.items() if value is not None}
