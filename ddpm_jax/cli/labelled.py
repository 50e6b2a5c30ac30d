"""`ddpm-jax sample` without prompts: what is made, and by which pipeline."""

from typing import TYPE_CHECKING, Any

import jax.numpy as jnp
import numpy as np

from ddpm_jax.cli import provenance
from ddpm_jax.cli.devices import Devices, local_devices
from ddpm_jax.cli.drawing import Drawing, default_batch_size
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
    guidance = {
        "guidance_scale": scale,
        "guidance_interval": given.guidance_interval,
        "negative_labels": negative,
        **images.options,
    }

    def options(indices: np.ndarray) -> dict[str, Any]:
        classes = np.asarray(labels)[indices % len(labels)] if labels else None
        return guidance | {"class_labels": classes}

    def drawing(count: int) -> Drawing:
        # A guide measures the whole batch, so its run is not split.
        devices = Devices() if "guide" in images.options else local_devices()
        unet, params = UNet2DModel.from_pretrained(
            model,
            revision=given.revision,
            variant=given.variant,
            dtype=jnp.dtype(given.dtype),
            sharding=devices.whole,
        )
        each = default_batch_size(*image_shape(unet)[:2])
        return Drawing(
            pipe=network.pipeline(unet=unet, params=params, scheduler=scheduler),
            options=options,
            table=table,
            seed=given.seed,
            batch_size=devices.batch_size(given.batch_size, each, count),
            every=given.save_every,
            split=devices.split,
        )

    return Job(
        total=16 if given.num is None else given.num,
        settings=provenance.chosen(
            given,
            ("revision", "variant", "seed", "guidance", "guidance_interval", "dtype"),
            model=model,
            **fingerprint(model, given.revision, given.variant),
            **given.settings(scheduler, model),
            labels=" ".join(map(str, labels)) or None,
            **images.settings,
        ),
        each=no_more,
        drawing=drawing,
        channels=network.config["in_channels"],
        classes=labels,
    )
