"""A whole Stable Diffusion in one file: `.safetensors` or `.ckpt`, in the layout of its original
code.

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

from weights_convert import ldm, ldm_configs
from weights_convert.errors import listed
from weights_convert.files import open_file
from weights_convert.ldm_configs import Config, Version
from weights_convert.tensors import Checkpoint, Stored

Kind: TypeAlias = Literal["text2img", "inpaint", "depth2img", "instruct_pix2pix"]

COMPONENTS = ("unet", "vae", "text_encoder")

_KINDS: dict[int, Kind] = {4: "text2img", 9: "inpaint", 5: "depth2img", 8: "instruct_pix2pix"}
"""By the channels of the UNet's input."""

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
    components: Mapping[str, Checkpoint]
    configs: Mapping[str, Config]
    version: Version | None
    """1 or 2, of Stable Diffusion; None if the file has neither a UNet nor a text encoder."""
    kind: Kind | None
    """What the UNet's input says; None without a UNet."""
    has_ema: bool
    """Whether the file has the UNet's moving average too."""
    global_step: int | None
    """The optimizer steps that a `.ckpt` states."""
    close: Callable[[], None]

    @property
    def absent(self) -> tuple[str, ...]:
        """The components that the file does not have."""
        return tuple(name for name in COMPONENTS if name not in self.components)

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
    """Whether a file is in this layout. A file that cannot be read is not."""
    try:
        with open_file(path, training=True) as checkpoint:
            return any(name.startswith(tuple(_PARTS)) for name in checkpoint)
    except ValueError:
        return False


def open_single_file(
    path: str | Path,
    *,
    ema: bool = False,
    without_depth_estimator: bool = False,
    overrides: Mapping[str, Mapping[str, Any]] | None = None,
) -> SingleFile:
    """Open a Stable Diffusion in one file. Nothing is read but names, shapes and dtypes.

    Args:
        path: a `.safetensors` or `.ckpt` file.
        ema: take the UNet's moving average; False takes its other weights, which in most published
            files are the average already.
        without_depth_estimator: leave the depth estimator of a 2-depth file out; else its weights
            are an error, since they are not read from such a file.
        overrides: fields of the configs that no shape tells, by component: {"unet":
            {"attention_head_dim": 2}, "scheduler": {"prediction_type": "epsilon"}}.

    Raises:
        ValueError: the file is damaged or of another layout, has names that no Stable Diffusion
            has, has no moving average where one is wanted, or an override is for no component of
            the file.
        FileNotFoundError: the file does not exist.
    """
    path = Path(path)
    with ExitStack() as opened:
        checkpoint = opened.enter_context(open_file(path, training=True))
        try:
            found = _found(checkpoint, ema, without_depth_estimator, overrides or {})
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None
        return SingleFile(
            **found, path=path, global_step=checkpoint.global_step, close=opened.pop_all().close
        )


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
    return {
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
            stacklevel=4,
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
            stacklevel=5,
        )
    return step != _BASE_STEP
