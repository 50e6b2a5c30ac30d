"""How good is a model of Fashion-MNIST? `python -m examples.fashion_mnist.measure RUN DATA`.

RUN is the folder of a training that has ended, DATA that of `prepare` and `classifier`. Writes
`results.json`, `results.md` and `samples.png`:

- bits per dimension of test images by the variational bound, per pixel of the 28x28: the bound of
  the whole 32x32 picture divided by 784. The border of 2 is always black, and what the model pays
  for it is counted;
- the Frechet distance between generated and test images by the features of the classifier, and
  that of as many training images beside it. It is no FID of Inception-v3;
- a grid of generated images.

Images and bounds are kept in the folder of --work, and an interrupted run continues there.
"""

import time
from argparse import ArgumentParser, Namespace
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

import ddpm_jax as dj
from benchmarks import report
from ddpm_jax import cli
from ddpm_jax.cli.evaluated import open_images
from ddpm_jax.cli.fingerprint import fingerprint
from ddpm_jax.evaluation.levels import from_uint8
from ddpm_jax.training.data import Data
from examples.fashion_mnist import classifier
from examples.parts import in_parts

HERE = Path(__file__).parent
AT_ONCE = 50
PIXELS = classifier.SIDE**2
SHOWN = 64
PUBLISHED = "a Glow has 2.958 on the test images (Nalisnick et al. 2019, arXiv:1810.09136, Fig. 1)"


def bits_per_pixel(given: Namespace, pixels: np.ndarray, weights: str) -> np.ndarray:
    """The bound of each image in bits, divided by 784."""
    model, params = dj.UNet2DModel.from_pretrained(given.run)
    scheduler = dj.DDPMScheduler.from_pretrained(given.run)
    steps = given.timesteps
    count = None if steps == scheduler.num_train_timesteps else steps
    fold = jax.vmap(partial(jax.random.fold_in, jax.random.key(0)))

    def compute(first: int, images: np.ndarray) -> dict[str, np.ndarray]:
        call = (model.denoise, params, scheduler, from_uint8(images))
        keys = fold(jnp.arange(first, first + len(images)))
        bound = dj.variational_bound(*call, keys, num_timesteps=count)
        whole = np.asarray(bound.total, np.float64) * images[0].size  # per dimension of 32x32
        return {"bits": whole / PIXELS}

    batches = [pixels[i : i + AT_ONCE] for i in range(0, len(pixels), AT_ONCE)]
    folder = given.work / f"bound-{weights[:12]}-{steps}-timesteps"
    return np.concatenate([p["bits"] for p in in_parts(folder, batches, len(pixels), compute)])


def drawn(given: Namespace, weights: str) -> np.ndarray:
    """The generated images, (N, 32, 32, 1); the folder is continued."""
    folder = given.work / f"samples-{weights[:12]}-{given.scheduler}-{given.steps}-steps"
    line = ["sample", "--model", str(given.run), "--num", str(given.num), "--out", str(folder)]
    line += ["--format", "npz", "--shard-size", "100", "--steps", str(given.steps)]
    line += ["--scheduler", given.scheduler]
    if code := cli.main(line):
        raise SystemExit(code)
    images = open_images(Data(name=str(folder)), given.num)
    return np.concatenate(list(images.batches(AT_ONCE)))


def collected(network: dj.FeatureNetwork, images: np.ndarray, what: str) -> dj.Statistics:
    """The statistics of features of images (N, 32, 32, 1)."""
    pixels = classifier.inner(images)
    starts = range(0, len(pixels), AT_ONCE)
    batches = (pixels[i : i + AT_ONCE] for i in tqdm(starts, f"features of {what}"))
    found = dj.collect_features(network, batches, ["statistics"]).statistics
    assert found is not None
    return found


def measured(given: Namespace) -> tuple[dict[str, Any], np.ndarray]:
    """The results, and the generated images."""
    sums = fingerprint(str(given.run), None, None)
    test, _ = classifier.read(given.data / "test.npz")
    train, _ = classifier.read(given.data / "train.npz")
    path = given.data / classifier.NAME
    network = classifier.features(path)
    bits = bits_per_pixel(given, test[: given.bound], sums["weights"])
    images = drawn(given, sums["weights"])
    real = collected(network, test, "test images")
    order = np.random.default_rng(0).permutation(len(train))[: given.num]
    known = collected(network, train[order], "training images")
    made = collected(network, images, "samples")
    result = {
        "weights": sums["weights"],
        "bits": {
            "images": len(bits),
            "timesteps": given.timesteps,
            "mean": bits.mean(),
            "standard_error": bits.std(ddof=1) / np.sqrt(len(bits)),
        },
        "num": len(images),
        "real": len(test),
        "scheduler": given.scheduler,
        "steps": given.steps,
        "distance": dj.frechet_distance(made, real),
        "distance_of_training_images": dj.frechet_distance(known, real),
        "classifier": {"sha256": network.weights, "accuracy": classifier.accuracy_of(path)},
        "machine": report.machine(),
        "taken": time.strftime("%Y-%m-%d", time.gmtime()),
    }
    return result, images


def markdown(result: Mapping[str, Any]) -> str:
    """The results as people read them."""
    bits, machine = result["bits"], result["machine"]
    rows = [
        ("generated", f"{result['distance']:.3f}"),
        ("training images", f"{result['distance_of_training_images']:.3f}"),
    ]
    bound = (
        f"Bound on the bits per pixel: {bits['mean']:.3f} ± {bits['standard_error']:.3f}, mean and "
        f"standard error over {bits['images']} test images, {bits['timesteps']} timesteps of each. "
        "It is the bound of the 32x32 picture with its black border, divided by the 784 pixels of "
        "28x28. "
        f"Published: {PUBLISHED}."
    )
    sets = (
        f"{result['num']} images by {result['scheduler']} in {result['steps']} steps, and as many "
        f"training images, against {result['real']} test images, by the {classifier.HIDDEN} "
        "features of a classifier that reads "
        f"{result['classifier']['accuracy']:.1%} of the test images right. These are no FIDs of "
        "Inception-v3, and compare with no published number:"
    )
    taken = (
        f"Weights {result['weights'][:12]}; {', '.join(machine['gpus']) or machine['cpu']}, "
        f"{machine['cores']} cores; jax {machine['versions']['jax']}; {result['taken']}."
    )
    parts = [
        "# Fashion-MNIST: a model's bits per pixel, and its images",
        bound,
        sets,
        report.table(("", "Frechet distance"), rows),
        "[samples.png](samples.png) shows the first of the generated images.",
        taken,
    ]
    return "\n\n".join(parts) + "\n"


def _checked(parser: ArgumentParser, given: Namespace) -> None:
    """Exits with a message if something is not there, before any work."""
    for part in ("train.npz", "test.npz"):
        if not (given.data / part).is_file():
            parser.error(
                f"{given.data / part} is not there: run python -m examples.fashion_mnist.prepare "
                f"{given.data}"
            )
    if not (given.data / classifier.NAME).is_file():
        parser.error(
            f"{given.data / classifier.NAME} is not there: run python -m "
            f"examples.fashion_mnist.classifier {given.data}"
        )
    if given.num < 2 or given.bound < 2:
        parser.error("--num and --bound must be at least 2")
    try:
        fingerprint(str(given.run), None, None)
    except (OSError, ValueError) as error:
        parser.error(f"{error}\nA training writes its model when it ends: is {given.run} done?")


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command."""
    parser = ArgumentParser(prog="python -m examples.fashion_mnist.measure", description=__doc__)
    add = parser.add_argument
    add("run", type=Path, help="folder of a training that has ended")
    add("data", type=Path, help="folder of train.npz, test.npz and classifier.npz")
    add("--num", type=report.count, default=1000, help="images to generate (1000)")
    add("--steps", type=report.count, default=50, help="of the sampler (50)")
    add("--scheduler", default="ddpm", help="as for ddpm-jax sample (ddpm)")
    add("--bound", type=report.count, default=1000, help="test images of the bound (1000)")
    add("--timesteps", type=report.count, default=50, help="of each; 1000 for the whole bound (50)")
    add("--out", type=Path, default=HERE, help="folder of the results")
    add("--work", type=Path, default=Path("fashion-work"), help="folder of what is kept")
    given = parser.parse_args(arguments)
    _checked(parser, given)
    result, images = measured(given)
    report.write(given.out / "results.json", result, markdown(result))
    dj.make_grid(images[:SHOWN] / 255.0, columns=8).save(given.out / "samples.png")
    print(markdown(result), end="")


if __name__ == "__main__":
    main()
