"""A model in one file: `.safetensors`, `.ckpt` or `.pt`, in the layout of its original code.

An unconditional UNet is in one of `layouts`, and becomes unet and scheduler. A Stable Diffusion has

    model.diffusion_model.                                    unet
    model_ema.                                                its moving average, names without dots
    first_stage_model., vae.                                  vae
    cond_stage_model.transformer., cond_stage_model.model.    text_encoder, of CLIP and of OpenCLIP
    depth_model.                                              a depth estimator, which is not read

    with open_single_file("v1-5-pruned-emaonly.safetensors") as file:
        file.configs["unet"]                  # diffusers' config, from the shapes
        to_flax(file.components["unet"])      # a `Checkpoint` in diffusers' names, read lazily

`components` has those of unet, vae and text_encoder that the file has. `configs` has theirs and,
beside a unet, the scheduler's. No code of a `.ckpt` is executed.
"""

import warnings
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from weights_convert import layouts, ldm_file
from weights_convert.errors import faults_of, listed
from weights_convert.files import open_file
from weights_convert.layout import averaged
from weights_convert.layouts.base import Settings, Tensors
from weights_convert.ldm_configs import Config, Version
from weights_convert.ldm_file import COMPONENTS, Kind, overridden
from weights_convert.names import without_wrappers
from weights_convert.tensors import Checkpoint

STABLE_DIFFUSION = "stable-diffusion"
"""The name of this layout, beside those of `layouts`."""
LAYOUTS = (STABLE_DIFFUSION, *layouts.BY_NAME)
_EMA_FILE = "ema_"
"""How the files of moving averages begin (OpenAI, pesser)."""

_PADDING = {1: "<|endoftext|>", 2: "!"}
"""The token that each version pads prompts with. No file says it: it is the tokenizer's."""


@dataclass(frozen=True, kw_only=True)
class SingleFile:
    """An open file. Use it as a context manager, or call `close`."""

    path: Path
    layout: str
    """One of `LAYOUTS`."""
    components: Mapping[str, Checkpoint]
    configs: Mapping[str, Config]
    version: Version | None = None
    """1 or 2, of Stable Diffusion; None if the file has neither a UNet nor a text encoder."""
    kind: Kind | None = None
    """What the UNet's input says, of Stable Diffusion; None without a UNet."""
    has_ema: bool
    """Whether the file has the UNet's moving average too."""
    is_average: bool | None
    """Whether the UNet's weights here are a moving average; None: the file does not say it."""
    global_step: int | None
    """The optimizer steps that a `.ckpt` states."""
    close: Callable[[], None]

    @property
    def absent(self) -> tuple[str, ...]:
        """The components that the file does not have."""
        wanted = COMPONENTS if self.layout == STABLE_DIFFUSION else ("unet",)
        return tuple(name for name in wanted if name not in self.components)

    def padding_fault(self, token: str | None) -> str | None:
        """Why a tokenizer that pads prompts with a token is the wrong one; None if nothing is wrong
        with it, or if it names none.
        """
        if token is None or self.version is None or token == _PADDING[self.version]:
            return None
        return (
            f"the tokenizer pads with {token!r}, and Stable Diffusion {self.version} with "
            f"{_PADDING[self.version]!r}: the pictures are not those of {self.path}"
        )

    def __enter__(self) -> "SingleFile":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def is_single_file(path: Path) -> bool:
    """Whether a file is in one of these layouts. A file that cannot be read is not."""
    try:
        with open_file(path, training=True) as checkpoint:
            return layout_names(checkpoint.stored) != ()
    except ValueError:
        return False


def layout_names(stored: Tensors) -> tuple[str, ...]:
    """The layouts that a file with these tensors may be in, of `LAYOUTS`."""
    if ldm_file.is_stable_diffusion(stored):
        return (STABLE_DIFFUSION,)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # wrappers' prefixes; reading warns of them
        return tuple(one.name for one in layouts.detected(without_wrappers(stored)))


def open_single_file(
    path: str | Path,
    *,
    ema: bool = False,
    without_depth_estimator: bool = False,
    overrides: Mapping[str, Mapping[str, Any]] | None = None,
    layout: str | None = None,
    settings: Settings | None = None,
) -> SingleFile:
    """Open a model in one file. Nothing is read but names, shapes and dtypes.

    Args:
        path: a `.safetensors`, `.ckpt` or `.pt` file.
        ema: take the UNet's moving average; False takes its other weights, if there are others. In
            most published Stable Diffusions these are the average already.
        without_depth_estimator: leave the depth estimator of a 2-depth file out; else its weights
            are an error, since they are not read from such a file.
        overrides: fields of the configs that no shape tells, by component: {"unet":
            {"attention_head_dim": 2}, "scheduler": {"prediction_type": "epsilon"}}.
        layout: one of `LAYOUTS`; needed where the names and shapes of several are the same.
        settings: of an unconditional UNet; the error about missing ones says which are needed.

    Raises:
        ValueError: the file is damaged or of another layout, has names that its layout does not
            have, has no moving average where one is wanted, an override is for no component of the
            file, or the layout or settings are missing or wrong.
        FileNotFoundError: the file does not exist.
    """
    path = Path(path)
    with ExitStack() as opened:
        checkpoint = opened.enter_context(open_file(path, training=True))
        with faults_of(path):
            if layout is not None and layout not in LAYOUTS:
                raise ValueError(f"layout must be one of {listed(LAYOUTS)}, got {layout!r}")
            found = _opened(
                path, checkpoint, layout, ema, without_depth_estimator, overrides or {}, settings
            )
        return SingleFile(
            **found, path=path, global_step=checkpoint.global_step, close=opened.pop_all().close
        )


def _opened(
    path: Path,
    checkpoint: Checkpoint,
    layout: str | None,
    ema: bool,
    without_depth_estimator: bool,
    overrides: Mapping[str, Mapping[str, Any]],
    settings: Settings | None,
) -> dict[str, Any]:
    """The fields of a `SingleFile` that the tensors decide, of any layout."""
    names = layout_names(checkpoint.stored)
    if not names or names == (STABLE_DIFFUSION,):
        if layout not in (None, STABLE_DIFFUSION):
            what = "a Stable Diffusion in one file" if names else "in no layout that is known"
            raise ValueError(f"is {what}, not of the layout {layout!r}")
        if settings is not None and settings.given:
            raise ValueError(
                f"{listed(settings.given)} are for unconditional UNets, which it is not"
            )
        found = ldm_file.opened(checkpoint, ema, without_depth_estimator, overrides)
        return {"layout": STABLE_DIFFUSION, **found}
    chosen = checkpoint.chosen(ema)
    tensors = without_wrappers(chosen.stored)
    kind = layouts.one_of(layouts.detected(tensors), layout)
    network = kind.network(tensors, settings or Settings())
    if "prediction_type" in overrides.get("scheduler", {}).keys() - network.scheduler.keys():
        raise ValueError(f"is {kind.title}, of which prediction_type says nothing")
    is_average = averaged_by_name(path, chosen.is_average)
    configs = {
        "unet": network.config | averaged(is_average),
        "scheduler": network.scheduler,
    }
    return {
        "layout": kind.name,
        "components": {"unet": Checkpoint(network.tensors)},
        "configs": overridden(configs, overrides),
        "has_ema": checkpoint.average is not None,
        "is_average": is_average,
    }


def averaged_by_name(path: Path, is_average: bool | None) -> bool | None:
    """Whether weights are a moving average: as the file says, else as its name does, if it does."""
    return True if is_average is None and path.name.startswith(_EMA_FILE) else is_average
