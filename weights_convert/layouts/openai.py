"""OpenAI's UNet (improved-diffusion, guided-diffusion, consistency models) to diffusers' form.

The names are those of `openai_names`. An attention's three projections are one convolution, `qkv`,
whose rows are, with H heads of c channels,

    new       (3, H, c)      queries of all heads, then keys, then values
    legacy    (H, 3, c)      for each head its queries, keys and values

What `UNet2DModel` cannot express is refused: heads of another width at each level, a time embedding
that is not as wide as the first level, averages in place of convolutions, and what a text or a
smaller picture conditions.

Reference: Nichol & Dhariwal 2021, arXiv:2102.09672; Dhariwal & Nichol 2021, arXiv:2105.05233.
"""

import re
from collections.abc import Iterator

from weights_convert.errors import listed
from weights_convert.layouts.base import HeadOrder, Settings, Tensors, linear, raise_if
from weights_convert.layouts.unet import check, described
from weights_convert.ldm_configs import Config, Shapes, shapes_of
from weights_convert.names import origins
from weights_convert.openai_names import renamer
from weights_convert.tensors import Stored, thirds

MARKS = (
    r"time_embed\.0\.weight",
    r"input_blocks\.0\.0\.weight",
    r"middle_block\.1\.qkv\.weight",
)
_QKV = re.compile(r"(.+\.attentions\.\d+)\.qkv\.(weight|bias)")
_ATTENTION = {"norm": "group_norm", "qkv": "qkv", "proj_out": "to_out.0"}


def unet(
    tensors: Tensors, settings: Settings, order: HeadOrder
) -> tuple[dict[str, Stored], Config]:
    """The tensors in diffusers' form, and the config.

    Args:
        tensors: under OpenAI's names.
        settings: with the heads, and what the config takes from them.
        order: of the heads in `qkv`.

    Raises:
        ValueError: they are not such a network, or one that `UNet2DModel` cannot express.
    """
    raise_if(_foreign(tensors))
    origin = origins(tensors, renamer(tensors, _in_attention), "such network")
    found: dict[str, Stored] = {}
    for new, old in origin.items():
        found |= _projections(new, tensors[old], settings, order)
    shapes = shapes_of(found)
    widths = shapes.widths("down_blocks")
    raise_if(_inexpressible(shapes, widths))
    attended = {shape[0] for name, shape in shapes.items() if name.endswith(".to_q.bias")}
    config = described(
        shapes,
        sample_size=settings.sample_size,
        attention_head_dim=_head_dim(sorted(attended), settings),
        attn_norm_num_groups=32,
        downsample_padding=1,
        norm_eps=1e-5,
        flip_sin_to_cos=True,
        freq_shift=0,
    )
    check(shapes, config, origin)
    return found, config


def _in_attention(rest: str) -> str | None:
    module, _, leaf = rest.rpartition(".")
    return f"{_ATTENTION[module]}.{leaf}" if module in _ATTENTION else None


def _foreign(tensors: Tensors) -> Iterator[str]:
    """Why this is another network than an unconditional UNet."""
    if any(".encoder_kv." in name or name.startswith("transformer.") for name in tensors):
        yield "it attends to a text (GLIDE), and UNet2DModel to nothing"
    if not any(name.startswith("output_blocks.") for name in tensors):
        yield "it has no output_blocks: half a file, or a classifier, which makes no images"


def _inexpressible(shapes: Shapes, widths: list[int]) -> Iterator[str]:
    sinusoid = shapes["time_embedding.linear_1.weight"][1]
    if widths and sinusoid != widths[0]:
        yield (
            f"its time embedding has {sinusoid} channels and its first level {widths[0]} (as in "
            "the models for 512 pixels), and in UNet2DModel both are the same"
        )
    if len(widths) > 1 and not any(".downsamplers." in name for name in shapes):
        yield "it halves pictures by averages (conv_resample is false), which UNet2DModel does not"


def channels(tensors: Tensors) -> tuple[int | None, int | None]:
    """Of the input and of the output; None for one whose convolution is missing."""

    def at(name: str, axis: int) -> int | None:
        shape = tensors[name].shape if name in tensors else ()
        return shape[axis] if len(shape) == 4 else None

    return at("input_blocks.0.0.weight", 1), at("out.2.weight", 0)


def heads_needed(settings: Settings) -> list[str]:
    """The fault of heads that are not stated; none if they are."""
    if settings.num_heads is None and settings.num_head_channels is None:
        return ["its tensors do not tell its heads: state num_heads or num_head_channels"]
    return []


def _head_dim(widths: list[int], settings: Settings) -> int | None:
    """`attention_head_dim`, the channels of a head, None: one head."""
    if settings.num_head_channels is not None:
        return settings.num_head_channels
    heads = settings.num_heads
    if heads is None or heads == 1:
        return None
    if len(widths) > 1:
        channels = ", ".join(str(width // heads) for width in widths)
        raise ValueError(
            f"{heads} heads at widths {listed(widths)} have {channels} channels, and UNet2DModel "
            "has one number of channels a head: it cannot express this network"
        )
    return widths[0] // heads


def _projections(
    new: str, tensor: Stored, settings: Settings, order: HeadOrder
) -> dict[str, Stored]:
    """A tensor, or the three that `qkv` becomes."""
    if ".attentions." in new:
        tensor = linear(tensor)
    if not (match := _QKV.fullmatch(new)):
        return {new: tensor}
    heads = _heads(tensor.shape[0] if tensor.shape else 0, settings)
    parts = thirds(tensor, heads if order == "legacy" else 1)
    names = (f"{match[1]}.to_{letter}.{match[2]}" for letter in "qkv")
    return dict(zip(names, parts, strict=True))


def _heads(rows: int, settings: Settings) -> int:
    """The heads of a `qkv` with so many rows."""
    width, rest = divmod(rows, 3)
    channels = settings.num_head_channels
    heads = settings.num_heads or (width // channels if channels else 1)
    if channels is not None and width % channels:
        raise ValueError(f"heads of {channels} channels do not divide {width}")
    if rest or heads == 0 or width % heads:
        raise ValueError(f"{rows} rows of qkv are not queries, keys and values of {heads} heads")
    return heads
