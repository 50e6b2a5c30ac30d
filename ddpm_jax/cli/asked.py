"""The model that metrics such as nll are of: read and checked, then loaded with the real images."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from ddpm_jax.cli import provenance
from ddpm_jax.cli.common import OptionError
from ddpm_jax.cli.devices import Devices, memory_advice
from ddpm_jax.cli.drawing import default_batch_size
from ddpm_jax.cli.evaluated import DrawnImages, with_bar
from ddpm_jax.cli.fingerprint import fingerprint
from ddpm_jax.cli.loading import Network, read_network, scheduler_config
from ddpm_jax.cli.schedule import own_kind, scheduler_json
from ddpm_jax.evaluation.metrics import Metric, ModelEvidence
from ddpm_jax.evaluation.sets import ImageSet, SourceImages
from ddpm_jax.hub import class_names
from ddpm_jax.hub.files import listed
from ddpm_jax.models import UNet2DModel
from ddpm_jax.schedulers import Scheduler

if TYPE_CHECKING:
    from ddpm_jax.cli.evaluate import Evaluate


@dataclass(frozen=True)
class Denoiser:
    """denoise(params, x, timestep) of a model. Equal models share compiled programs.

    Attributes:
        model: the model.
        classes: whether its params are the pair (params, labels).
    """

    model: UNet2DModel
    classes: bool

    def __call__(self, params: Any, x: Array, timestep: Array) -> Any:
        """The network's output."""
        own, labels = params if self.classes else (params, None)
        return self.model.apply({"params": own}, x, timestep, class_labels=labels)


@dataclass(frozen=True)
class Asked:
    """A model before its weights are read.

    Attributes:
        given: the command's options.
        network: its network's config and classes.
        schedulers: its process by metric, each of the class that the metric asks for.
    """

    given: "Evaluate"
    network: Network
    schedulers: dict[str, Scheduler]

    @property
    def classes(self) -> bool:
        """Whether it needs the class of each image."""
        config = self.network.config
        return config.class_embed_type is not None or config.num_class_embeds is not None

    def check(self, metrics: Sequence[Metric], images: ImageSet) -> None:
        """OptionError for images that are not the model's, and as `Metric.model_faults`."""
        shape = images.shape
        assert shape is not None
        config = self.network.config
        size, channels = config.sample_size, config.in_channels
        sides = (size, size) if isinstance(size, int) else size or shape[:2]
        faults = []
        if (*sides, channels) != shape:
            faults.append(
                f"the model's images are {_size((*sides, channels))}, and the real ones "
                f"{_size(shape)}: see --resolution"
            )
        for metric in metrics:
            if metric.of_model:
                faults += metric.model_faults(self.schedulers[metric.name], shape)
        if self.classes and isinstance(images, SourceImages):
            faults += self._label_faults(images)
        if faults:
            raise OptionError("; ".join(faults))

    def _label_faults(self, images: SourceImages) -> Iterator[str]:
        labels, names = images.source.labels, self.network.names
        assert labels is not None
        if names and images.source.classes:
            known = set(names.values())
            if unknown := [name for name in images.source.classes if name not in known]:
                yield (
                    f"the real images' classes {listed(unknown)} are none of the model's: "
                    f"{class_names.in_words(names)}"
                )
        elif self.network.config.class_embed_type is None:
            count = self.network.config.num_class_embeds
            if (top := int(labels.max())) >= count:
                yield (
                    f"the labels of the real images must lie in 0..{count - 1}, as the model has "
                    f"{count} classes; got {top}"
                )

    def labels(self, images: ImageSet) -> np.ndarray | None:
        """The model's class of each image: by name where both have names, otherwise by number."""
        if not self.classes:
            return None
        assert isinstance(images, SourceImages)
        source, names = images.source, self.network.names
        assert source.labels is not None
        if not (names and source.classes):
            return source.labels
        return np.array(class_names.numbers_of(source.classes, names), np.int32)[source.labels]

    def load(self, devices: Devices, images: ImageSet, samples: ImageSet | None) -> "Loaded":
        """The model with its weights. They are read once: if samples were drawn, it is theirs."""
        given = self.given
        if isinstance(samples, DrawnImages):
            model, params = samples.drawing.pipe.unet, samples.drawing.pipe.params
        else:
            model, params = UNet2DModel.from_pretrained(
                given.name,
                revision=given.revision,
                variant=given.variant,
                dtype=jnp.dtype(given.dtype),
                sharding=devices.whole,
            )
        assert images.shape is not None
        each = default_batch_size(*images.shape[:2])
        return Loaded(self, Denoiser(model, self.classes), params, devices, each, images)

    @property
    def settings(self) -> dict[str, Any]:
        """All that decides its numbers, but the images, for the record."""
        given = self.given
        return {
            **provenance.chosen(given, ("revision", "variant", "dtype"), model=given.name),
            **fingerprint(given.name, given.revision, given.variant),
            "schedulers": {name: scheduler_json(one) for name, one in self.schedulers.items()},
        }


@dataclass(frozen=True)
class Loaded:
    """A model with its weights, and the real images that it is asked about.

    Attributes:
        asked: the model.
        denoise: its network.
        params: its weights.
        devices: where they are.
        each: images in a batch of a device, unless the user says.
        images: the real images.
    """

    asked: Asked
    denoise: Denoiser
    params: Any
    devices: Devices
    each: int
    images: ImageSet

    def compute(self, metric: Metric, evidence: Any) -> dict[str, float]:
        """A metric's numbers from this and the other evidence.

        Raises:
            MemoryError: a batch does not fit; the message names a batch size to try.
        """
        num = metric.images(self.images.count)
        size = self.devices.batch_size(self.asked.given.batch_size, self.each, num)
        own = ModelEvidence(
            denoise=self.denoise,
            params=self.params,
            scheduler=self.asked.schedulers[metric.name],
            batches=with_bar(self.images, size, metric.name, num),
            batch_size=size,
            labels=self.asked.labels(self.images),
            place=self._place,
        )
        with memory_advice(size, self.devices.count):
            return metric.compute(evidence._replace(model=own))

    def _place(self, arrays: Any) -> Any:
        return jax.device_put(arrays, self.devices.split)


def asked_model(given: "Evaluate", metrics: Sequence[Metric]) -> Asked | None:
    """The model that the metrics are of; None if they are of none. No weights are read.

    Raises:
        OptionError: its images are drawn from prompts, or an option is refused.
        ValueError: as `read_network`.
    """
    of_model = [metric for metric in metrics if metric.of_model]
    if not of_model:
        return None
    config = scheduler_config(given.name, given.revision, given.scheduler_config)
    hint = f"{of_model[0].name} is of models without"
    network = read_network(given.name, given.revision, own_kind(config), hint)
    drawn = None if all(not metric.of_samples for metric in metrics) else given.make(config)
    found = {}
    for metric in of_model:
        if drawn is None:
            found[metric.name] = given.make(config, metric.process(own_kind(config)))
        else:
            found[metric.name] = metric.process(type(drawn)).from_config(drawn.config)
    return Asked(given, network, found)


def _size(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))
