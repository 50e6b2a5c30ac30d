"""What `evaluate` computes: features of both sets of images, the metrics, the record of a run."""

import dataclasses
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
from tqdm import tqdm

from ddpm_jax.cli import provenance
from ddpm_jax.cli.common import OptionError, counted, option_errors
from ddpm_jax.cli.devices import Devices, local_devices
from ddpm_jax.cli.evaluate import ENOUGH
from ddpm_jax.cli.evaluated import DrawnImages, Pixels, described, open_images
from ddpm_jax.cli.job import Job
from ddpm_jax.evaluation.features import Collected, FeatureNetwork, Need, collect_features
from ddpm_jax.evaluation.metrics import Evidence, Metric
from ddpm_jax.evaluation.networks import NETWORKS
from ddpm_jax.evaluation.resizing import Batches
from ddpm_jax.evaluation.sets import ImageSet
from ddpm_jax.evaluation.statistics import Statistics, is_statistics
from ddpm_jax.hub.files import write_json
from ddpm_jax.sampling.segments import out_of_memory
from ddpm_jax.training.data import Data

if TYPE_CHECKING:
    from ddpm_jax.cli.evaluate import Evaluate

OF_DATA = ("resolution", "split", "subset", "image_column")
"""Options of the real images, which `Data` has under the same names."""

BATCH = 50
"""Default number of images in a batch of a device: pytorch-fid's."""


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
        """A line for each number, with its spread over subsets; and what to mind."""
        lines = []
        for numbers in self.values.values():
            for name, value in numbers.items():
                if not name.endswith("_std"):
                    std = numbers.get(f"{name}_std")
                    spread = "" if std is None else f" ± {std:.6g}"
                    lines.append(f"{name:<10} {value:.6g}{spread}")
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
    """Computes the metrics. What can be wrong is found before the network is read.

    Raises:
        OptionError: there are too few images, or an option is refused for them.
        ValueError, OSError, ImportError: images or weights cannot be read.
    """
    job = given.sample().job() if given.draws else None
    samples = None if job else _images(Data(name=given.name), given.num)
    reference = _reference(given, metrics)
    _check_counts(metrics, _count(job or samples) or 0, _count(reference))
    devices = local_devices()
    network = _network(given, devices)
    _check_sets(network, job, samples, reference)
    runner = Runner(network, devices, given.batch_size)
    real = _collect_reference(given, runner, metrics, reference)
    if job is not None:
        samples = DrawnImages(job, job.drawing(job.total))
    assert samples is not None
    made = runner.collect(samples, _needs(metrics, "of_samples"), "samples")
    values = {metric.name: metric.compute(Evidence(made, real)) for metric in metrics}
    record = _record(given, runner, metrics, samples, reference)
    return Scores(values, record)


def _record(
    given: "Evaluate",
    runner: "Runner",
    metrics: Sequence[Metric],
    samples: ImageSet,
    reference: ImageSet | Statistics | None,
) -> dict[str, Any]:
    """All that is needed to repeat a run."""
    network = runner.network
    record: dict[str, Any] = {
        "samples": described(samples, runner.shapes.get("samples")),
        "features": {
            "network": network.name,
            "weights": network.weights,
            "resize": network.resizing.name,
            "dims": network.dims,
        },
        "options": {metric.name: dataclasses.asdict(metric) for metric in metrics},
        "devices": [device.device_kind for device in jax.local_devices()],
        "versions": json.loads(provenance.versions()),
    }
    if isinstance(reference, Statistics):
        record["reference"] = {"statistics": given.against, "count": reference.count}
    elif reference is not None:
        data = {name: getattr(given, name) for name in OF_DATA}
        shown = described(reference, runner.shapes.get("reference"))
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
            batches = _with_bar(images, size, what)
        try:
            return collect_features(
                self.network,
                self._seen(batches, what),
                needs,
                batch_size=size,
                split=self._devices.split,
            )
        except (jax.errors.JaxRuntimeError, MemoryError) as error:
            if out_of_memory(error) and size > self._devices.count:
                least = max(1, size // self._devices.count // 2) * self._devices.count
                raise MemoryError(f"out of memory: try --batch-size {least}") from error
            raise

    def _seen(self, batches: Batches, what: str) -> Iterator[Pixels]:
        for images in batches:
            self.shapes[what] = images.shape[1:]
            yield images


def _with_bar(images: ImageSet, size: int, what: str) -> Iterator[Pixels]:
    with tqdm(total=images.count, desc=f"features of the {what}", unit=" images") as bar:
        for batch in images.batches(size):
            yield batch
            bar.update(len(batch))


def _images(data: Data, num: int | None = None) -> ImageSet:
    with option_errors():
        return open_images(data, num)


def _reference(given: "Evaluate", metrics: Sequence[Metric]) -> ImageSet | Statistics | None:
    """The real images, or their statistics. OptionError if statistics do not suffice."""
    if given.against is None:
        return None
    if not is_statistics(Path(given.against).expanduser()):
        return _images(Data(name=given.against, **{name: getattr(given, name) for name in OF_DATA}))
    useless = [
        f"--{name.replace('_', '-')}"
        for name in (*OF_DATA, "save_stats")
        if getattr(given, name) is not None
    ]
    if useless:
        raise OptionError(f"{given.against} has statistics, not images: leave out {useless[0]}")
    more = [metric.name for metric in metrics if metric.of_reference - {"statistics"}]
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
