"""What `evaluate` computes: features of sets of images, the metrics, the record of a run."""

import dataclasses
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax

from ddpm_jax.cli import provenance
from ddpm_jax.cli.asked import Asked, Loaded, asked_model
from ddpm_jax.cli.common import OptionError, counted, flag, option_errors
from ddpm_jax.cli.devices import Devices, local_devices, memory_advice
from ddpm_jax.cli.evaluate import ENOUGH
from ddpm_jax.cli.evaluated import DrawnImages, described, open_images, with_bar
from ddpm_jax.cli.job import Job
from ddpm_jax.evaluation.features import Collected, FeatureNetwork, Need, collect_features
from ddpm_jax.evaluation.metrics import Evidence, Metric
from ddpm_jax.evaluation.networks import NETWORKS
from ddpm_jax.evaluation.resizing import Batches, Pixels
from ddpm_jax.evaluation.sets import ImageSet, SourceImages
from ddpm_jax.evaluation.statistics import Statistics, is_statistics
from ddpm_jax.hub.files import write_json
from ddpm_jax.training.data import Data

if TYPE_CHECKING:
    from ddpm_jax.cli.evaluate import Evaluate

OF_DATA = ("resolution", "split", "subset", "image_column", "label_column")
"""Options of the real images, which `Data` has under the same names."""

BATCH = 50
"""Default number of images in a batch of a device: pytorch-fid's."""


SPREADS = ("_std", "_error")
"""Endings of numbers that are the standard deviation over subsets, or the standard error, of the
number before."""


@dataclass(frozen=True)
class Scores:
    """The numbers of a run, and all that is needed to repeat it.

    Attributes:
        values: by the metric's name and then the number's.
        record: what the images and the features are.
    """

    values: dict[str, dict[str, float]]
    record: dict[str, Any]

    def table(self) -> str:
        """A line for each number, with its spread or standard error; and what to mind."""
        lines = []
        for numbers in self.values.values():
            for name, value in numbers.items():
                if not name.endswith(SPREADS):
                    std = [numbers[own] for end in SPREADS if (own := name + end) in numbers]
                    spread = f" ± {std[0]:.6g}" if std else ""
                    lines.append(f"{name:<12} {value:.6g}{spread}")
        counts = [self.record[of]["count"] for of in ("samples", "reference") if of in self.record]
        least = min((count for count in counts if count is not None), default=ENOUGH)
        if "fid" in self.values and least < ENOUGH:
            lines.append(
                f"The fid of {counted(least, 'image')} is too large: compare it only with those of "
                "equally many"
            )
        return "\n".join(lines)

    def save(self, path: Path) -> None:
        """Writes a JSON file."""
        write_json(path, {"metrics": self.values, **self.record})


def measure(given: "Evaluate", metrics: Sequence[Metric]) -> Scores:
    """Computes the metrics. What can be wrong is found before a network is read.

    Raises:
        OptionError: there are too few images, or an option is refused for them.
        ValueError, OSError, ImportError: images or weights cannot be read.
    """
    of_features = _needs(metrics, "of_samples")
    asked = asked_model(given, metrics)
    job = given.sample().job() if of_features and given.draws else None
    samples = _images(Data(name=given.name), given.num) if of_features and not job else None
    reference = _reference(given, metrics, asked)
    _check_counts(metrics, _count(job or samples) or 0, _count(reference))
    if asked is not None:
        assert isinstance(reference, ImageSet)
        asked.check(metrics, reference)
    devices = local_devices()
    evidence, record = Evidence(), {}
    if of_features:
        runner = Runner(_network(given, devices), devices, given.batch_size)
        _check_sets(runner.network, job, samples, reference)
        real = _collect_reference(given, runner, metrics, reference)
        if job is not None:
            samples = DrawnImages(job, job.drawing(job.total))
        assert samples is not None
        evidence = Evidence(runner.collect(samples, of_features, "samples"), real)
        record = runner.record | {"samples": described(samples, runner.shapes.get("samples"))}
    loaded = None
    if asked is not None:
        assert isinstance(reference, ImageSet)
        loaded = asked.load(devices, reference, samples)
        record["model"] = asked.settings
    values = _values(metrics, evidence, loaded)
    return Scores(values, record | _record(given, metrics, reference))


def _values(
    metrics: Sequence[Metric], evidence: Evidence, loaded: Loaded | None
) -> dict[str, dict[str, float]]:
    """The numbers of all metrics. Those of a model take long, and come last."""
    values = {one.name: one.compute(evidence) for one in metrics if not one.of_model}
    if loaded is not None:
        values |= {one.name: loaded.compute(one, evidence) for one in metrics if one.of_model}
    return {one.name: values[one.name] for one in metrics}


def _record(
    given: "Evaluate", metrics: Sequence[Metric], reference: ImageSet | Statistics | None
) -> dict[str, Any]:
    """What is needed to repeat any run."""
    record: dict[str, Any] = {
        "options": {metric.name: dataclasses.asdict(metric) for metric in metrics},
        "devices": [device.device_kind for device in jax.local_devices()],
        "versions": json.loads(provenance.versions()),
    }
    if isinstance(reference, Statistics):
        record["reference"] = {"statistics": given.against, "count": reference.count}
    elif reference is not None:
        data = {name: getattr(given, name) for name in OF_DATA}
        shown = described(reference, reference.shape)
        record["reference"] = shown | {k: v for k, v in data.items() if v is not None}
    return record


class Runner:
    """Runs a network over sets of images, and remembers their shapes.

    Args:
        network: the network.
        devices: where it is.
        batch_size: the user's, or None.
    """

    def __init__(self, network: FeatureNetwork, devices: Devices, batch_size: int | None):
        self.network, self._devices, self._given = network, devices, batch_size
        self.shapes: dict[str, tuple[int, ...]] = {}

    @property
    def record(self) -> dict[str, Any]:
        """What the features are."""
        network = self.network
        return {
            "features": {
                "network": network.name,
                "weights": network.weights,
                "resize": network.resizing.name,
                "dims": network.dims,
            }
        }

    def collect(self, images: ImageSet, needs: frozenset[Need], what: str) -> Collected:
        """What the metrics need of a set, with a progress bar unless the images are drawn.

        Raises:
            MemoryError: a batch does not fit; the message names a batch size to try.
        """
        if isinstance(images, DrawnImages):
            size = images.drawing.batch_size
            batches: Batches = images.batches(size)
        else:
            size = self._devices.batch_size(self._given, BATCH, images.count)
            batches = with_bar(images, size, f"features of the {what}")
        with memory_advice(size, self._devices.count):
            return collect_features(
                self.network,
                self._seen(batches, what),
                needs,
                batch_size=size,
                split=self._devices.split,
            )

    def _seen(self, batches: Batches, what: str) -> Iterator[Pixels]:
        for images in batches:
            self.shapes[what] = images.shape[1:]
            yield images


def _images(data: Data, num: int | None = None) -> ImageSet:
    with option_errors():
        return open_images(data, num)


def _labelled_images(data: Data) -> ImageSet:
    try:
        found = _images(data)
    except OptionError as error:
        raise OptionError(f"nll of a model with classes needs labels: {error}") from error
    if not isinstance(found, SourceImages):
        raise OptionError(f"nll of a model with classes needs labels, and {data.name} has none")
    return found


def _reference(
    given: "Evaluate", metrics: Sequence[Metric], asked: Asked | None
) -> ImageSet | Statistics | None:
    """The real images, or their statistics. OptionError if statistics do not suffice."""
    if given.against is None:
        return None
    labels = asked is not None and asked.classes
    if given.label_column is not None and not labels:
        raise OptionError("--label-column is of nll with a model that has classes: leave it out")
    if not is_statistics(Path(given.against).expanduser()):
        chosen = {name: getattr(given, name) for name in OF_DATA}
        data = Data(name=given.against, labels=labels, **chosen)
        return _labelled_images(data) if labels else _images(data)
    of_images = (*OF_DATA, "save_stats")
    useless = [flag(name) for name in of_images if getattr(given, name) is not None]
    if useless:
        raise OptionError(f"{given.against} has statistics, not images: leave out {useless[0]}")
    more = [one.name for one in metrics if one.of_model or one.of_reference - {"statistics"}]
    if more:
        raise OptionError(
            f"{', '.join(more)} needs the real images, and {given.against} has only their "
            "statistics"
        )
    return Statistics.load(Path(given.against).expanduser())


def _count(images: Job | ImageSet | Statistics | None) -> int | None:
    if images is None:
        return None
    return images.total if isinstance(images, Job) else images.count


def _check_counts(metrics: Sequence[Metric], samples: int, reference: int | None) -> None:
    """OptionError for metrics that need more images."""
    faults = [fault for metric in metrics for fault in metric.faults(samples, reference)]
    if faults:
        raise OptionError("; ".join(faults))


def _network(given: "Evaluate", devices: Devices) -> FeatureNetwork:
    options: dict[str, Any] = {"sharding": devices.whole}
    if given.features == "inception":
        options |= {"weights": given.weights, "resize": given.resize or "pytorch-fid"}
    return NETWORKS[given.features](**options)


def _check_sets(
    network: FeatureNetwork,
    job: Job | None,
    samples: ImageSet | None,
    reference: ImageSet | Statistics | None,
) -> None:
    """OptionError for images that the network cannot take, and for statistics of another one."""
    faults = []
    if job is not None and job.channels not in (1, network.channels):
        faults.append(f"the model's images have {job.channels} channels, not {network.channels}")
    for what, images in (("samples", samples), ("real images", reference)):
        if isinstance(images, Statistics):
            if images.features not in (None, network.description):
                faults.append(
                    f"the statistics are by {images.features}, and these features "
                    f"{network.description}"
                )
            elif len(images.mean) != network.dims:
                faults.append(
                    f"the statistics have {len(images.mean)} features, and {network.name} "
                    f"{network.dims}"
                )
        elif images is not None and images.shape and (fault := network.fault(images.shape)):
            faults.append(f"the {what} do not suit the features: {fault}")
    if faults:
        raise OptionError("; ".join(faults))


def _needs(metrics: Sequence[Metric], of: str) -> frozenset[Need]:
    return frozenset().union(*(getattr(metric, of) for metric in metrics))


def _collect_reference(
    given: "Evaluate",
    runner: Runner,
    metrics: Sequence[Metric],
    reference: ImageSet | Statistics | None,
) -> Collected | None:
    """What the metrics need of the real images, whose statistics are written if asked for."""
    if isinstance(reference, Statistics):
        return Collected(reference.count, reference)
    if reference is None:
        return None
    extra: frozenset[Need] = frozenset({"statistics"} if given.save_stats is not None else ())
    needs = _needs(metrics, "of_reference") | extra
    found = runner.collect(reference, needs, "reference")
    if given.save_stats is not None:
        assert found.statistics is not None
        found.statistics.save(given.save_stats)
    return found
