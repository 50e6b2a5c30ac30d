"""--image, --mask and --strength of `sample`: image to image, and inpainting."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from PIL import Image

from ddpm_jax.cli.common import OptionError, option_errors
from ddpm_jax.hub.files import file_sum
from ddpm_jax.images import MODES
from ddpm_jax.pipelines.beginning import skipped
from ddpm_jax.pipelines.pictures import pil_images

if TYPE_CHECKING:
    from ddpm_jax.cli.loading import Network
    from ddpm_jax.cli.sample import Sample


SMALLEST_STD = 0.5 / 255
"""Of the noise in a small image's pixels in [0, 1]: half a step of 8 bits, about."""
DATA_STD = 0.25
"""Of images in [0, 1], about."""


class GivenImages(NamedTuple):
    """The images that a run begins with.

    Attributes:
        options: of a pipeline's call beside a table.
        start: number of steps that the table leaves out.
        settings: what determines the images' pixels, by name.
    """

    options: dict[str, Any]
    start: int
    settings: dict[str, Any]


def given_images(given: "Sample", default_strength: float) -> GivenImages:
    """Opens the images.

    Raises:
        OptionError: a file cannot be read, sizes differ, or the strength is outside (0, 1].
    """
    if given.image is None:
        return GivenImages({}, 0, {})
    options: dict[str, Any] = {"image": _opened(given.image, "--image", "RGB")}
    settings: dict[str, Any] = {"image_sha256": file_sum(Path(given.image))}
    settings["strength"] = default_strength if given.strength is None else given.strength
    with option_errors():
        start = skipped(given.steps, settings["strength"])
    if given.mask is not None:
        settings["mask_sha256"] = file_sum(Path(given.mask))
        options["mask_image"] = _opened(given.mask, "--mask", "L")
        options["strength"] = settings["strength"]  # without a mask the table has it
        sizes = [f"{one.width}x{one.height}" for one in (options["mask_image"], options["image"])]
        if sizes[0] != sizes[1]:
            raise OptionError(
                f"--mask must have the size of --image: got {sizes[0]}, not {sizes[1]}"
            )
    return GivenImages(options, start, settings)


def upscaled(file: str, network: "Network") -> GivenImages:
    """A run whose images look like a smaller one when they are scaled down, by `pigdm`.

    Raises:
        OptionError: the file cannot be read, or its size is no whole part of the model's.
    """
    from ddpm_jax.guidance.measurements import Downsampled
    from ddpm_jax.guidance.pigdm import pigdm

    config, pixels = network.config, network.pipeline.pixels
    size, channels = config["sample_size"], config["in_channels"]
    if channels not in MODES:
        raise OptionError(f"--upscale is for images, but this model's have {channels} channels")
    small = _opened(file, "--upscale", MODES[channels])
    height, width = (size, size) if isinstance(size, int) else size or (0, 0)
    factor = height // small.height
    if factor < 2 or (small.height * factor, small.width * factor) != (height, width):
        raise OptionError(
            f"--upscale needs an image smaller than the model's {width}x{height} by a whole "
            f"factor, got {small.width}x{small.height}"
        )
    values = np.asarray(small, np.float32).reshape(1, small.height, small.width, channels)
    wanted, width = pixels.from_unit(values / 255), 1 - pixels.black
    guide = pigdm(Downsampled(factor), wanted, SMALLEST_STD * width, data_std=DATA_STD * width)
    return GivenImages({"guide": guide}, 0, {"upscale_sha256": file_sum(Path(file))})


def _opened(file: str, option: str, mode: str) -> Image.Image:
    try:
        with Image.open(file) as image:
            images = pil_images(image)
            assert images is not None
            return images[0].convert(mode)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise OptionError(f"{option} {file} cannot be read: {error}") from None
