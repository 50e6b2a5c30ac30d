"""The settings of image processors, which diffusers wants in a pipeline's folder.

Here they are constants of the networks' `preprocess`; all published folders have these.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ddpm_jax.hub.files import write_json
from ddpm_jax.pixels import CLIP_MEAN, CLIP_STD

CLIP_PROCESSOR = {
    "image_processor_type": "CLIPImageProcessor",
    "crop_size": {"height": 224, "width": 224},
    "do_center_crop": True,
    "do_convert_rgb": True,
    "do_normalize": True,
    "do_rescale": True,
    "do_resize": True,
    "image_mean": list(CLIP_MEAN),
    "image_std": list(CLIP_STD),
    "resample": 3,
    "rescale_factor": 1 / 255,
    "size": {"shortest_edge": 224},
}
"""The settings of a safety checker's images, for diffusers."""

DPT_PROCESSOR = {
    "image_processor_type": "DPTImageProcessor",
    "do_normalize": True,
    "do_rescale": True,
    "do_resize": True,
    "ensure_multiple_of": 1,
    "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.5, 0.5, 0.5],
    "keep_aspect_ratio": False,
    "resample": 3,
    "rescale_factor": 1 / 255,
    "size": {"height": 384, "width": 384},
}
"""The settings of a depth estimator's images, for diffusers."""


def write_processor(folder: Path, settings: Mapping[str, Any]) -> None:
    """Writes the settings of an image processor into a pipeline's folder."""
    target = folder / "feature_extractor"
    target.mkdir(exist_ok=True)
    write_json(target / "preprocessor_config.json", settings)
