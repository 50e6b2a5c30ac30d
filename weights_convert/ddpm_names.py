"""The names of Ho et al.'s UNet in PyTorch, which the autoencoder of Stable Diffusion has too, to
diffusers' names.

With n levels:

    down.i.{block, attn}.j                down_blocks.i.{resnets, attentions}.j
    down.i.downsample.conv                down_blocks.i.downsamplers.0.conv
    mid.{block_1, attn_1, block_2}        mid_block.{resnets.0, attentions.0, resnets.1}
    up.{n - 1 - i}.{block, attn}.j        up_blocks.i.{resnets, attentions}.j
    up.{n - 1 - i}.upsample.conv          up_blocks.i.upsamplers.0.conv
    conv_in, norm_out, conv_out           conv_in, conv_norm_out, conv_out
"""

import re
from collections.abc import Callable, Iterable

_ENDS = {"conv_in": "conv_in", "norm_out": "conv_norm_out", "conv_out": "conv_out"}
_RESNET = {name: name for name in ("norm1", "conv1", "norm2", "conv2")} | {
    "temb_proj": "time_emb_proj",
    "nin_shortcut": "conv_shortcut",
}
_ATTENTION = {
    "norm": "group_norm",
    "q": "to_q",
    "k": "to_k",
    "v": "to_v",
    "proj_out": "to_out.0",
}
_MIDDLE = {
    "block_1": ("resnets.0", _RESNET),
    "attn_1": ("attentions.0", _ATTENTION),
    "block_2": ("resnets.1", _RESNET),
}
_KINDS = {"block": ("resnets", _RESNET), "attn": ("attentions", _ATTENTION)}
_MID = re.compile(r"mid\.(block_1|attn_1|block_2)\.(\w+)")
_BLOCK = re.compile(r"(down|up)\.(\d+)\.(?:(block|attn)\.(\d+)\.(\w+)|(?:down|up)sample\.conv)")


def renamer(names: Iterable[str]) -> Callable[[str], str | None]:
    """A function from a module's name to that of diffusers, or to None for one that no such network
    has. `names` are those of all tensors, which say how many levels there are.
    """
    numbers = [int(found[1]) for name in names if (found := re.search(r"\bup\.(\d+)\.", name))]
    last = max(numbers, default=0)

    def renamed(module: str) -> str | None:
        if module in _ENDS:
            return _ENDS[module]
        if found := _MID.fullmatch(module):
            place, table = _MIDDLE[found[1]]
            return f"mid_block.{place}.{table[found[2]]}" if found[2] in table else None
        if not (found := _BLOCK.fullmatch(module)):
            return None
        way, number, kind, layer, inner = found.groups()
        block = f"{way}_blocks.{number if way == 'down' else last - int(number)}"
        if kind is None:
            return f"{block}.{way}samplers.0.conv"
        place, table = _KINDS[kind]
        return f"{block}.{place}.{layer}.{table[inner]}" if inner in table else None

    return renamed
