"""`ddpm-jax sample` with prompts: what is made, and by which pipeline."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax.numpy as jnp

from ddpm_jax.cli import provenance
from ddpm_jax.cli.common import OptionError, option_errors
from ddpm_jax.cli.devices import local_devices
from ddpm_jax.cli.drawing import Drawing, default_batch_size
from ddpm_jax.cli.fingerprint import fingerprints
from ddpm_jax.cli.given_images import given_images
from ddpm_jax.cli.job import Job
from ddpm_jax.cli.loading import located, scheduler_config
from ddpm_jax.hub import hub
from ddpm_jax.models import AutoencoderKL
from ddpm_jax.pipelines.base import supported_class
from ddpm_jax.pipelines.depth_to_image import StableDiffusionDepth2ImgPipeline
from ddpm_jax.pipelines.image_to_image import StableDiffusionImg2ImgPipeline
from ddpm_jax.pipelines.inpaint import StableDiffusionInpaintPipeline
from ddpm_jax.pipelines.stable_diffusion import GUIDANCE_SCALE, StableDiffusion
from ddpm_jax.pipelines.text_to_image import StableDiffusionPipeline

if TYPE_CHECKING:
    from ddpm_jax.cli.sample import Sample


def prompts_of(texts: Sequence[str], file: str | None) -> list[str]:
    """The prompts of the command line: texts, or the lines of a file that are not blank.

    Raises:
        OptionError: both are given, the file cannot be read, or it has no prompt.
    """
    if file is None:
        return list(texts)
    if texts:
        raise OptionError("pass --prompt or --prompts-from, not both")
    try:
        lines = Path(file).read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise OptionError(f"--prompts-from {file} cannot be read: {error}") from None
    found = [line.strip() for line in lines if line.strip()]
    if not found:
        raise OptionError(f"--prompts-from {file} has no prompt: it needs one on each line")
    return found


def job(given: "Sample", model: str, prompts: list[str]) -> Job:
    """The run of these prompts.

    Raises:
        OptionError: an option is refused for this model.
        ValueError: the model does not exist, or its pipeline is not supported.
    """
    _, index = located(model, given.revision)
    named = None if index is None else supported_class(index)
    if index is None or named is None or not issubclass(named, StableDiffusion):
        raise OptionError(f"{model} makes images without prompts: leave out --prompt")
    kind = _kind(given, named)
    images = given_images(given, kind.default_strength)
    options = _options(given, images.options, given.guidance_of_table(model))
    config = scheduler_config(model, given.revision, given.scheduler_config)
    # As the pipeline changes it, and then as the user does.
    own = kind.adopted(replace(given, overrides=()).make(config))
    scheduler = given.make(own.config)
    table = given.table(scheduler, model, images.start)
    wanted = [one.files for name, one in kind.declared().items() if name in index.components]
    folder = hub.pipeline(model, wanted, revision=given.revision, variant=given.variant)
    _check_sizes(given, AutoencoderKL.read_model(hub.component(folder, AutoencoderKL.files)).factor)
    num = given.num or 1
    settings = provenance.chosen(
        given,
        ("revision", "variant", "seed", "negative", "guidance_interval", "height", "width"),
        model=model,
        dtype=given.dtype,
        **fingerprints(folder, kind, given.variant),
        pipeline=kind.__name__,
        **given.settings(scheduler, model),
        guidance=options["guidance_scale"],
        **images.settings,
    )

    def each(number: int) -> Mapping[str, str] | None:
        return {"prompt": prompts[number // num]} if number < num * len(prompts) else None

    def drawing(count: int) -> Drawing:
        devices = local_devices()
        pipe: Any = kind.from_pretrained(
            folder,
            scheduler=own,
            dtype=jnp.dtype(given.dtype),
            variant=given.variant,
            sharding=devices.whole,
        )
        pipe.scheduler = scheduler
        with option_errors():
            height, width = pipe.image_size(given.height, given.width)
        if "image" in options and "mask_image" not in options:
            width, height = options["image"].size
        default = default_batch_size(height, width)
        return Drawing(
            pipe=pipe,
            options=lambda indices: options | {"prompt": [prompts[i // num] for i in indices]},
            table=table,
            seed=given.seed,
            batch_size=devices.batch_size(given.batch_size, default, count),
            every=given.save_every,
            split=devices.split,
        )

    return Job(num * len(prompts), settings, each, drawing)


def _kind(given: "Sample", named: type[StableDiffusion]) -> type[StableDiffusion]:
    """The pipeline for these options, whatever the folder names."""
    if given.mask is not None:
        return StableDiffusionInpaintPipeline
    if given.image is not None:
        depth = named is StableDiffusionDepth2ImgPipeline
        return named if depth else StableDiffusionImg2ImgPipeline
    if named is StableDiffusionDepth2ImgPipeline:
        raise OptionError("this model needs --image, whose depth it keeps")
    return StableDiffusionPipeline


def _options(given: "Sample", images: Mapping[str, Any], of_table: float | None) -> dict[str, Any]:
    """The options of the pipeline's call, with those of the images; a table may have a scale."""
    default = GUIDANCE_SCALE if of_table is None else of_table
    if of_table is not None and given.guidance not in (None, of_table):
        print(
            f"ddpm-jax: the table is for --guidance {of_table:g}, got {given.guidance:g}",
            file=sys.stderr,
        )
    found: dict[str, Any] = {
        "guidance_scale": default if given.guidance is None else given.guidance,
        "guidance_interval": given.guidance_interval,
        "negative_prompt": given.negative,
        **images,
    }
    sizes = {"height": given.height, "width": given.width}
    if given.image is None or given.mask is not None:
        return found | sizes
    if any(sizes.values()):
        raise OptionError("--height and --width are those of --image: leave them out")
    return found


def _check_sizes(given: "Sample", factor: int) -> None:
    """OptionError for sizes that no image can have, before the weights are read."""
    wrong = [side for side in (given.height, given.width) if side and side % factor]
    if wrong:
        raise OptionError(f"--height and --width must be multiples of {factor}, got {wrong[0]}")
