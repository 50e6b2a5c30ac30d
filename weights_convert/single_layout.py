"""The layout of a model in one file: the pipeline's folder that it becomes.

Of an unconditional UNet these are unet/, scheduler/ and model_index.json. Of a Stable Diffusion:

unet/, vae/, text_encoder/      config.json and weights, of those that the file has
scheduler/                      scheduler_config.json
tokenizer/                      copied from another folder; no such file has one
model_index.json                of the class that the UNet's input says
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, cast

from weights_convert.errors import listed
from weights_convert.json_files import read_json
from weights_convert.layout import (
    AVERAGE_NOTE,
    CONFIG,
    INDEX,
    LAYOUT,
    SCHEDULER_CONFIG,
    Layout,
    Network,
    unconditional_index,
)
from weights_convert.layouts import BY_NAME
from weights_convert.layouts.base import PredictionType, Settings
from weights_convert.ldm_file import Kind
from weights_convert.single_file import SingleFile

_PIPELINES: dict[Kind, str] = {
    "text2img": "StableDiffusionPipeline",
    "inpaint": "StableDiffusionInpaintPipeline",
    "depth2img": "StableDiffusionDepth2ImgPipeline",
    "instruct_pix2pix": "StableDiffusionInstructPix2PixPipeline",
}
_CLASSES = {
    "unet": ("diffusers", "UNet2DConditionModel"),
    "vae": ("diffusers", "AutoencoderKL"),
    "text_encoder": ("transformers", "CLIPTextModel"),
    "tokenizer": ("transformers", "CLIPTokenizer"),
    "scheduler": ("diffusers", "DDIMScheduler"),
}
_TOKENIZER_FILES = (
    "tokenizer.json",
    "vocab.json",
    "merges.txt",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
)


@dataclass(frozen=True, kw_only=True)
class SingleOptions:
    """What only a model in one file needs. See `open_single_file` for `ema`,
    `without_depth_estimator`, `overrides`, `layout` and `settings`.

    Attributes:
        ema: take the moving average, where the file has it beside other weights.
        without_depth_estimator: leave the depth estimator of a Stable Diffusion out.
        overrides: fields of configs, by component.
        prediction_type: a short form of an override.
        tokenizer: a folder with a tokenizer, its own or a pipeline's, to copy from.
        layout: the file's layout, where its tensors do not tell it.
        settings: of an unconditional UNet, what its tensors do not tell.
    """

    ema: bool = False
    without_depth_estimator: bool = False
    overrides: Mapping[str, Mapping[str, Any]] = field(default_factory=dict[str, dict[str, Any]])
    prediction_type: PredictionType | None = None
    tokenizer: str | Path | None = None
    layout: str | None = None
    settings: Settings = field(default_factory=Settings)

    @property
    def given(self) -> list[str]:
        """The names of the options that are not at their defaults, but for `ema`."""
        names = [one.name for one in fields(self) if one.name not in ("ema", "settings")]
        default = SingleOptions()
        changed = [name for name in names if getattr(self, name) != getattr(default, name)]
        return [*changed, *self.settings.given]


def single_layout(file: SingleFile, tokenizer: Path | None, component: str | None) -> Layout:
    """The layout of a file's result: a pipeline's folder, or that of one component.

    Raises:
        ValueError: the file does not have the component, or the tokenizer's folder lacks its files.
    """
    names = list(file.components) if component is None else [component]
    if component is not None and component not in file.components:
        raise ValueError(
            f"{file.path} has no component {component!r}: it has {', '.join(file.components)}"
        )
    networks = tuple(
        Network(
            weights=file.path,
            open=lambda name=name: file.components[name],
            config=file.configs[name],
            subfolder="" if component else name,
        )
        for name in names
    )
    made = {f"{one.subfolder}/{CONFIG}".removeprefix("/"): one.config for one in networks}
    if file.layout in BY_NAME:
        return _unconditional(file, networks, made, tokenizer, component)
    if component is not None or file.kind is None:
        if tokenizer is not None:
            raise ValueError("a tokenizer is for a whole pipeline, not for single components of it")
        return Layout(networks=networks, made=made, notes=() if component else _notes(file, True))
    copies = {} if tokenizer is None else _tokenizer(tokenizer)
    made[f"scheduler/{SCHEDULER_CONFIG}"] = file.configs["scheduler"]
    made[INDEX] = _index(file, file.kind, bool(copies))
    notes = (*_notes(file, bool(copies)), *_padding(file, copies))
    return Layout(networks=networks, copies=copies, made=made, notes=notes)


def _unconditional(
    file: SingleFile,
    networks: tuple[Network, ...],
    made: dict[str, dict[str, Any]],
    tokenizer: Path | None,
    component: str | None,
) -> Layout:
    """The layout of an unconditional UNet: a pipeline's folder, or the UNet alone."""
    if tokenizer is not None:
        raise ValueError(f"{file.path} takes no prompts: it needs no tokenizer")
    notes = (AVERAGE_NOTE,) if file.has_ema and not file.is_average else ()
    if component is None:
        made[f"scheduler/{SCHEDULER_CONFIG}"] = file.configs["scheduler"]
        made[INDEX] = unconditional_index(file.configs["scheduler"]["_class_name"])
    return Layout(networks=networks, made=made, notes=notes)


def _index(file: SingleFile, kind: Kind, tokenizer: bool) -> dict[str, Any]:
    """The pipeline's index. What the result lacks is [null, null]."""
    present = {*file.components, "scheduler", *(["tokenizer"] if tokenizer else [])}
    entries: dict[str, Any] = {
        name: list(entry) if name in present else [None, None] for name, entry in _CLASSES.items()
    }
    if kind == "depth2img":
        absent = ("depth_estimator", "feature_extractor")
    else:
        absent = ("safety_checker", "feature_extractor", "image_encoder")
        entries["requires_safety_checker"] = False
    head = {"_class_name": _PIPELINES[kind], "_diffusers_version": LAYOUT}
    return head | entries | {name: [None, None] for name in absent}


def _notes(file: SingleFile, tokenizer: bool) -> tuple[str, ...]:
    """What to add before the result can be used."""
    lacking = [*file.absent, *([] if tokenizer else ["tokenizer"])]
    if file.kind == "depth2img":
        lacking += ["depth_estimator", "feature_extractor"]
    note = f"without {listed(lacking)}: add a folder for each, and name it in {INDEX}"
    return (note,) if lacking else ()


def _padding(file: SingleFile, copies: Mapping[str, Path]) -> tuple[str, ...]:
    """A note if the tokenizer pads with another token than the networks were trained with."""
    if not copies:
        return ()
    tokens = [
        read_json(copies[name]).get("pad_token")
        for name in ("tokenizer/tokenizer_config.json", "tokenizer/special_tokens_map.json")
        if name in copies
    ]
    token: Any = next(filter(None, tokens), None)
    if isinstance(token, dict):
        token = cast(dict[str, Any], token).get("content")
    note = file.padding_fault(token)
    return () if note is None else (note,)


def _tokenizer(folder: Path) -> dict[str, Path]:
    """The files of a tokenizer to copy, from its own folder or that of a pipeline."""
    folder = folder / "tokenizer" if (folder / "tokenizer").is_dir() else folder
    found = {name for name in _TOKENIZER_FILES if (folder / name).is_file()}
    if "tokenizer.json" not in found and not {"vocab.json", "merges.txt"} <= found:
        raise ValueError(
            f"{folder} is not a tokenizer's folder: it needs tokenizer.json, or vocab.json and "
            "merges.txt"
        )
    return {f"tokenizer/{name}": folder / name for name in sorted(found)}
