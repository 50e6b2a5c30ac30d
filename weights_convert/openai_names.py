"""The names of OpenAI's UNet, which Stable Diffusion's has too, to diffusers' names.

With i for a level of n, j for a layer of it, and S blocks a level, the last of which resamples:

    time_embed.{0, 2}, label_emb                 time_embedding.linear_{1, 2}, class_embedding
    input_blocks.0.0, out.{0, 2}                 conv_in, conv_norm_out, conv_out
    input_blocks.{1 + S i + j}.{0, 1}            down_blocks.i.{resnets, attentions}.j
    input_blocks.{S (i + 1)}.0                   down_blocks.i.downsamplers.0, with op -> conv
    middle_block.{0, 1, 2}                       mid_block.{resnets.0, attentions.0, resnets.1}
    output_blocks.{S i + j}.{0, 1}               up_blocks.i.{resnets, attentions}.j
    output_blocks.{S i + S - 1}.{1, 2}           up_blocks.i.upsamplers.0

A resampler is a convolution, or a residual block. The first one of the output ends a level.
"""

import re
from collections.abc import Callable, Collection

_ENDS = {
    "time_embed.0": "time_embedding.linear_1",
    "time_embed.2": "time_embedding.linear_2",
    "label_emb": "class_embedding",
    "input_blocks.0.0": "conv_in",
    "out.0": "conv_norm_out",
    "out.2": "conv_out",
}
_RESNET = {
    "in_layers.0": "norm1",
    "in_layers.2": "conv1",
    "emb_layers.1": "time_emb_proj",
    "out_layers.0": "norm2",
    "out_layers.3": "conv2",
    "skip_connection": "conv_shortcut",
}
_MIDDLE = {"0": ("resnets", "0"), "1": ("attentions", "0"), "2": ("resnets", "1")}
_BLOCK = re.compile(r"(input|output)_blocks\.(\d+)\.([012])\.(.+)")
_RESAMPLED = re.compile(
    r"input_blocks\.(\d+)\.0\.op\..+|output_blocks\.(\d+)\.[12]\.(?:conv|in_layers\.\d)\..+"
)


def renamer(
    names: Collection[str], attention: Callable[[str], str | None]
) -> Callable[[str], str | None]:
    """A function from a name to diffusers' name, or to None for one that no such network has.

    Args:
        names: all names of the network, which say how many blocks a level has.
        attention: from a name inside an attention to that of diffusers, or None.
    """
    size = _blocks_per_level(names)

    def inside(block: str, kind: str, layer: str, rest: str) -> str | None:
        module, _, leaf = rest.rpartition(".")
        if kind == "attentions":
            new = attention(rest)
        else:
            new = f"{_RESNET[module]}.{leaf}" if module in _RESNET else None
        return new and f"{block}.{kind}.{layer}.{new}"

    def renamed(name: str) -> str | None:
        module, _, leaf = name.rpartition(".")
        if module in _ENDS:
            return f"{_ENDS[module]}.{leaf}"
        if name.startswith("middle_block."):
            number, _, rest = name.removeprefix("middle_block.").partition(".")
            return inside("mid_block", *_MIDDLE[number], rest) if number in _MIDDLE else None
        found = _BLOCK.fullmatch(name)
        if not found or name.startswith("input_blocks.0."):
            return None
        side, number, slot, rest = found.groups()
        way, conv = ("down", "op") if side == "input" else ("up", "conv")
        level, layer = divmod(int(number) - (way == "down"), size)
        block = f"{way}_blocks.{level}"
        if rest == f"{conv}.{leaf}":
            return f"{block}.{way}samplers.0.conv.{leaf}"
        resamples = layer == size - 1 and (way == "down" or slot != "0")
        if resamples and rest.startswith(("in_layers.", "emb_layers.", "out_layers.")):
            return inside(block, f"{way}samplers", "0", rest)
        kind = {"0": "resnets", "1": "attentions"}.get(slot)
        return kind and inside(block, kind, str(layer), rest)

    return renamed


def _blocks_per_level(names: Collection[str]) -> int:
    """S: the first block that resamples ends a level; with none there is one level."""
    found = [_RESAMPLED.fullmatch(name) for name in names]
    first = [int(match[1]) if match[1] else int(match[2]) + 1 for match in found if match]
    blocks = {name.split(".")[1] for name in names if name.startswith("input_blocks.")}
    return min(first, default=max(1, len(blocks)))
