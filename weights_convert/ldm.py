"""The names of Stable Diffusion's original code ("LDM") to those of diffusers and transformers.

The UNet's are those of `openai_names`, with transformers for attentions; those of encoder and
decoder are those of `ddpm_names`.

    transformer.resblocks.l                      text_model.encoder.layers.l, of OpenCLIP

Each function takes the tensors of one network, without their common prefix, and returns them under
today's names and in today's layout, unread. It raises ValueError for names that it does not know.
"""

import re
from collections.abc import Callable, Collection, Mapping

from weights_convert import ddpm_names
from weights_convert.names import origins, with_current_names
from weights_convert.openai_names import renamer
from weights_convert.rules import BUFFERS
from weights_convert.tensors import Stored, thirds

Tensors = Mapping[str, Stored]

_TRANSFORMER = ("norm.", "proj_in.", "transformer_blocks.", "proj_out.")

_VAE_DROPPED = ("loss.", "model_ema.")
_VAE_STRANGE = re.compile(r"encoder\.up\..+|decoder\.down\..+|.+\.attn\..+|.+\.temb_proj\..+")
"""Names of the UNet that the autoencoder does not have."""

_TEXT = "text_model."
_TEXT_PARTS = ("embeddings.", "encoder.", "final_layer_norm.")
_OTHER_TOWER = ("logit_scale", "text_projection")

_OPEN_CLIP_ENDS = {
    "token_embedding.weight": "embeddings.token_embedding.weight",
    "positional_embedding": "embeddings.position_embedding.weight",
    "ln_final.weight": "final_layer_norm.weight",
    "ln_final.bias": "final_layer_norm.bias",
}
_OPEN_CLIP_LAYER = {
    "ln_1": "layer_norm1",
    "attn.out_proj": "self_attn.out_proj",
    "ln_2": "layer_norm2",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
}
_OPEN_CLIP_DROPPED = ("attn_mask", *_OTHER_TOWER)
_OPEN_CLIP_BLOCK = re.compile(r"transformer\.resblocks\.(\d+)\.(.+)")
_IN_PROJ = re.compile(r"attn\.in_proj_(weight|bias)")
_SD2_LAYERS = 23
"""Of OpenCLIP's 24; files that training programs wrote back have these only."""


def unet(tensors: Tensors) -> dict[str, Stored]:
    """A UNet's tensors, from those below `model.diffusion_model.`."""

    def attention(rest: str) -> str | None:
        return rest if rest.startswith(_TRANSFORMER) else None

    return _renamed(tensors, renamer(tensors, attention))


def vae(tensors: Tensors) -> dict[str, Stored]:
    """An autoencoder's tensors, from those below `first_stage_model.`; its loss is left out."""
    kept = {name: t for name, t in tensors.items() if not name.startswith(_VAE_DROPPED)}
    module_of = ddpm_names.renamer(kept)

    def renamed(name: str) -> str | None:
        if name.startswith(("quant_conv.", "post_quant_conv.")):
            return name
        coder, _, rest = name.partition(".")
        if coder not in ("encoder", "decoder") or _VAE_STRANGE.fullmatch(name):
            return None
        module, _, leaf = rest.rpartition(".")
        new = module_of(module)
        return new and f"{coder}.{new}.{leaf}"

    return with_current_names(_renamed(kept, renamed))  # the attention's 1x1 convolutions: linear


def text(tensors: Tensors) -> dict[str, Stored]:
    """A text encoder's tensors in transformers' names, with or without their first part."""
    dropped = (*BUFFERS, *_OTHER_TOWER)
    kept = {name: t for name, t in tensors.items() if not _has_part(name, dropped)}

    def renamed(name: str) -> str | None:
        name = name.removeprefix(_TEXT)
        return _TEXT + name if name.startswith(_TEXT_PARTS) else None

    return _renamed(kept, renamed)


def open_clip(tensors: Tensors) -> dict[str, Stored]:
    """A text encoder's tensors from OpenCLIP's, without the last layer, which Stable Diffusion 2
    does not use.
    """
    matches = {name: _OPEN_CLIP_BLOCK.fullmatch(name) for name in tensors}
    count = 1 + max((int(match[1]) for match in matches.values() if match), default=-1)
    layers = count if count == _SD2_LAYERS else count - 1
    kept: dict[str, Stored] = {}
    for name, tensor in tensors.items():
        match = matches[name]
        if (match and int(match[1]) >= layers) or _has_part(name, _OPEN_CLIP_DROPPED):
            continue
        if match and _IN_PROJ.fullmatch(match[2]):
            names = (name.replace("attn.in_proj_", f"self_attn.{part}_proj.") for part in "qkv")
            kept |= zip(names, thirds(tensor), strict=True)
        else:
            kept[name] = tensor

    def renamed(name: str) -> str | None:
        if name in _OPEN_CLIP_ENDS:
            return _TEXT + _OPEN_CLIP_ENDS[name]
        if not (match := _OPEN_CLIP_BLOCK.fullmatch(name)):
            return None
        module, _, leaf = match[2].rpartition(".")
        new = module if module.startswith("self_attn.") else _OPEN_CLIP_LAYER.get(module)
        return new and f"{_TEXT}encoder.layers.{match[1]}.{new}.{leaf}"

    return _renamed(kept, renamed)


def _has_part(name: str, parts: Collection[str]) -> bool:
    """Whether a part of the name is one of these."""
    return not set(name.split(".")).isdisjoint(parts)


def _renamed(tensors: Tensors, rename: Callable[[str], str | None]) -> dict[str, Stored]:
    found = origins(tensors, rename, "Stable Diffusion")
    return {new: tensors[old] for new, old in found.items()}
