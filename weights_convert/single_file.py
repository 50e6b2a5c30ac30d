"""A model in one file: `.safetensors`, `.ckpt` or `.pt`, in the layout of its original code. An
unconditional UNet is in one of `layouts`, and becomes unet and scheduler. A whole Stable Diffusion:

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

import re
import warnings
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, TypeAlias

from weights_convert import layouts, ldm, ldm_configs
from weights_convert.errors import listed
from weights_convert.files import open_file
from weights_convert.layout import AVERAGED
from weights_convert.layouts.base import Settings, Tensors
from weights_convert.ldm_configs import Config, Version
from weights_convert.names import without_wrappers
from weights_convert.tensors import Checkpoint, Stored

Kind: TypeAlias = Literal["text2img", "inpaint", "depth2img", "instruct_pix2pix"]

STABLE_DIFFUSION = "stable-diffusion"
"""The name of this layout, beside those of `layouts`."""
LAYOUTS = (STABLE_DIFFUSION, *layouts.BY_NAME)
COMPONENTS = ("unet", "vae", "text_encoder")

_KINDS: dict[int, Kind] = {4: "text2img", 9: "inpaint", 5: "depth2img", 8: "instruct_pix2pix"}
"""By the channels of the UNet's input."""

_EMA_FILE = "ema_"
"""How the files of moving averages begin (OpenAI, pesser)."""

_UNET, _EMA, _DEPTH = "model.diffusion_model.", "model_ema.", "depth_model."
_PARTS: dict[str, tuple[str, Callable[[ldm.Tensors], dict[str, Stored]]]] = {
    _UNET: ("unet", ldm.unet),
    "first_stage_model.": ("vae", ldm.vae),
    "vae.": ("vae", ldm.vae),
    "cond_stage_model.transformer.": ("text_encoder", ldm.text),
    "cond_stage_model.model.": ("text_encoder", ldm.open_clip),
}
_BUFFERS = re.compile(
    r"(betas|alphas_cumprod(_prev)?|sqrt_\w+|posterior_\w+|log_\w+|lvlb_weights|logvar|scale_factor"
    r"|global_step|cond_stage_model\.logit_scale)"
)
_PADDING = {1: "<|endoftext|>", 2: "!"}
"""The token that each version pads prompts with. No file says it: it is the tokenizer's."""

_BASE_STEP = 875_000
"""The optimizer steps of 2-base, the one text to image of version 2 that predicts eps."""


@dataclass(frozen=True, kw_only=True)
class SingleFile:
    """An open file. Use it as a context manager, or call `close`."""

    path: Path
    layout: str
    """One of `LAYOUTS`."""
    components: Mapping[str, Checkpoint]
    configs: Mapping[str, Config]
    version: Version | None
    """1 or 2, of Stable Diffusion; None if the file has neither a UNet nor a text encoder."""
    kind: Kind | None
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

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
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
    if any(name.startswith(tuple(_PARTS)) for name in stored):
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
        try:
            if layout is not None and layout not in LAYOUTS:
                raise ValueError(f"layout must be one of {listed(LAYOUTS)}, got {layout!r}")
            found = _opened(
                path, checkpoint, layout, ema, without_depth_estimator, overrides or {}, settings
            )
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None
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
            raise ValueError(f"{listed(settings.given)} are for unconditional UNets, which it is not")
        return _found(checkpoint, ema, without_depth_estimator, overrides)
    chosen = checkpoint.chosen(ema)
    tensors = without_wrappers(chosen.stored)
    kind = layouts.one_of(layouts.detected(tensors), layout)
    network = kind.network(tensors, settings or Settings())
    if "prediction_type" in overrides.get("scheduler", {}).keys() - network.scheduler.keys():
        raise ValueError(f"is {kind.title}, of which prediction_type says nothing")
    is_average = averaged_by_name(path, chosen.is_average)
    configs = {
        "unet": network.config | _averaged(is_average),
        "scheduler": network.scheduler,
    }
    return {
        "layout": kind.name,
        "components": {"unet": Checkpoint(network.tensors)},
        "configs": _overridden(configs, overrides),
        "version": None,
        "kind": None,
        "has_ema": checkpoint.average is not None,
        "is_average": is_average,
    }


def averaged_by_name(path: Path, is_average: bool | None) -> bool | None:
    """Whether weights are a moving average: as the file says, else as its name does, if it does."""
    return True if is_average is None and path.name.startswith(_EMA_FILE) else is_average


def has_average(stored: Tensors) -> bool:
    """Whether the names of a Stable Diffusion's tensors say that it has a moving average."""
    return any(name.startswith(_EMA) for name in stored)


def _averaged(is_average: bool | None) -> Config:
    """The field of a config that says it, where it is known."""
    return {} if is_average is None else {AVERAGED: is_average}


def _found(
    checkpoint: Checkpoint,
    ema: bool,
    without_depth_estimator: bool,
    overrides: Mapping[str, Mapping[str, Any]],
) -> dict[str, Any]:
    """The fields of a `SingleFile` that the tensors decide."""
    parts = _parts(checkpoint.stored, without_depth_estimator)
    averages = _averages(parts.get(_UNET, {}), checkpoint.stored)
    if ema:
        missing = [name for name, average in averages.items() if average is None]
        if missing or not averages:
            raise ValueError(f"has no moving average (EMA) of {listed(missing) or 'a UNet'}")
        parts[_UNET] = {name: average for name, average in averages.items() if average}
    tensors = {name: turn(parts[p]) for p, (name, turn) in _PARTS.items() if p in parts}
    if len(tensors) < len(parts):
        raise ValueError(f"has one network under two prefixes, of {', '.join(parts)}")
    shapes = {name: ldm_configs.shapes_of(inside) for name, inside in tensors.items()}
    version = _version(shapes, parts)
    kind = _kind(shapes["unet"]) if "unet" in shapes else None
    configs = _configs(shapes, version, kind, checkpoint.global_step, overrides)
    averaged = True if ema else None  # most published files have the average in place of the others
    if "unet" in configs:
        configs["unet"] |= _averaged(averaged)
    return {
        "layout": STABLE_DIFFUSION,
        "is_average": averaged,
        "components": {name: Checkpoint(inside) for name, inside in tensors.items()},
        "configs": configs,
        "version": version,
        "kind": kind,
        "has_ema": any(averages.values()),
    }


def _parts(
    stored: Mapping[str, Stored], without_depth_estimator: bool
) -> dict[str, dict[str, Stored]]:
    """The tensors below each of the prefixes that the file has, without it."""
    parts: dict[str, dict[str, Stored]] = {}
    others: set[str] = set()
    for name, tensor in stored.items():
        prefix = next((prefix for prefix in _PARTS if name.startswith(prefix)), None)
        if prefix is not None:
            parts.setdefault(prefix, {})[name.removeprefix(prefix)] = tensor
        elif not _BUFFERS.fullmatch(name) and not name.startswith(_EMA):
            others.add(name.partition(".")[0])
    if not parts:
        raise ValueError(
            "is not a Stable Diffusion in one file: its names begin with "
            f"{listed(sorted(others)) or 'nothing'}, not with {', '.join(_PARTS)}"
        )
    depth = _DEPTH.removesuffix(".")
    if depth in others and not without_depth_estimator:
        raise ValueError(
            f"has a depth estimator ({_DEPTH}), which is not read from such a file: leave it out "
            "(without_depth_estimator), and take one from a folder"
        )
    if others - {depth}:
        warnings.warn(
            f"names that no Stable Diffusion has are left out: {listed(sorted(others - {depth}))}",
            stacklevel=5,
        )
    return parts


def _averages(unet: Mapping[str, Stored], stored: Mapping[str, Stored]) -> dict[str, Stored | None]:
    """The moving average of each of the UNet's tensors. Its name has no dots after the prefix."""
    model = _UNET.partition(".")[2]
    return {name: stored.get(_EMA + (model + name).replace(".", "")) for name in unet}


def _version(shapes: Mapping[str, ldm_configs.Shapes], parts: Mapping[str, Any]) -> Version | None:
    if "unet" in shapes:
        return ldm_configs.version_of(shapes["unet"])
    if "text_encoder" in shapes:
        return 2 if "cond_stage_model.model." in parts else 1
    return None


def _kind(unet: ldm_configs.Shapes) -> Kind:
    channels = unet["conv_in.weight"][1]
    if channels not in _KINDS:
        accepted = ", ".join(f"{count} ({kind})" for count, kind in _KINDS.items())
        raise ValueError(f"its UNet takes {channels} channels: must be one of {accepted}")
    return _KINDS[channels]


def _configs(
    shapes: Mapping[str, ldm_configs.Shapes],
    version: Version | None,
    kind: Kind | None,
    step: int | None,
    overrides: Mapping[str, Mapping[str, Any]],
) -> dict[str, Config]:
    """The config of each component, with the caller's fields."""
    predicts_v = _predicts_v(version, kind, step, overrides.get("scheduler", {}))
    configs: dict[str, Config] = {}
    if "unet" in shapes and version is not None:
        configs["unet"] = ldm_configs.unet(shapes["unet"], version, predicts_v)
        configs["scheduler"] = ldm_configs.scheduler(predicts_v)
    if "vae" in shapes:
        configs["vae"] = ldm_configs.vae(shapes["vae"], predicts_v)
    if "text_encoder" in shapes and version is not None:
        configs["text_encoder"] = ldm_configs.text(shapes["text_encoder"], version)
    return _overridden(configs, overrides)


def _overridden(
    configs: Mapping[str, Config], overrides: Mapping[str, Mapping[str, Any]]
) -> dict[str, Config]:
    """The configs with the caller's fields. ValueError for fields of a component without one."""
    unknown = sorted(overrides.keys() - configs.keys())
    if unknown:
        raise ValueError(
            f"overrides are for {listed(unknown)}, but the file has {', '.join(configs)}"
        )
    return {name: config | dict(overrides.get(name, {})) for name, config in configs.items()}


def _predicts_v(
    version: Version | None, kind: Kind | None, step: int | None, scheduler: Mapping[str, Any]
) -> bool:
    """Whether the UNet predicts v. No weight tells: of version 2, the number of steps does."""
    if "prediction_type" in scheduler:
        return scheduler["prediction_type"] == "v_prediction"
    if version != 2 or kind != "text2img":
        return False
    if step is None:
        warnings.warn(
            "a Stable Diffusion 2 that does not say what it predicts: v_prediction is assumed, "
            "which is right for 768 pixels; of the base model, for 512, set the scheduler's "
            "prediction_type to epsilon",
            stacklevel=6,
        )
    return step != _BASE_STEP
