"""The shapes of a `UNet2DModel`, and the config that they say.

`described` reads the levels from tensors under diffusers' names; `check` compares all of them with
what the config asks for, and names the faults as the file does.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

from weights_convert.errors import listed
from weights_convert.ldm_configs import Config, Shapes
from weights_convert.tensors import Shape

Named: TypeAlias = Iterator[tuple[str, Shape]]
DOWN = {False: "DownBlock2D", True: "AttnDownBlock2D"}
UP = {False: "UpBlock2D", True: "AttnUpBlock2D"}
RESNET_DOWN = {False: "ResnetDownsampleBlock2D", True: "AttnDownBlock2D"}
RESNET_UP = {False: "ResnetUpsampleBlock2D", True: "AttnUpBlock2D"}


def described(shapes: Shapes, **others: Any) -> Config:
    """The fields of a config that shapes tell, beside other ones; ValueError if one is missing that
    all such networks have.
    """
    widths = shapes.widths("down_blocks")
    if not widths:
        raise ValueError("it has no blocks")
    attends = [f"down_blocks.{i}.attentions.0.to_q.weight" in shapes for i in range(len(widths))]
    by_resnet = "down_blocks.0.downsamplers.0.norm1.weight" in shapes
    down, up = (RESNET_DOWN, RESNET_UP) if by_resnet else (DOWN, UP)
    kind = "resnet" if by_resnet else "conv"
    hidden = shapes["time_embedding.linear_1.weight"][0]
    doubled = shapes["down_blocks.0.resnets.0.time_emb_proj.weight"][0] == 2 * widths[0]
    rows = shapes.get("class_embedding.weight", (None,))[0]
    return {
        "_class_name": "UNet2DModel",
        "in_channels": shapes["conv_in.weight"][1],
        "out_channels": shapes["conv_out.weight"][0],
        "block_out_channels": widths,
        "layers_per_block": shapes.count("down_blocks.0.resnets"),
        "down_block_types": [down[one] for one in attends],
        "up_block_types": [up[one] for one in attends[::-1]],
        "downsample_type": kind,
        "upsample_type": kind,
        "time_embedding_dim": None if hidden == 4 * widths[0] else hidden,
        "resnet_time_scale_shift": "scale_shift" if doubled else "default",
        "num_class_embeds": rows,
        "norm_num_groups": 32,
        **others,
    }


def check(shapes: Mapping[str, Shape], config: Config, origin: Mapping[str, str]) -> None:
    """ValueError, with all faults, unless the shapes are those of a network with this config.

    Args:
        shapes: by diffusers' names.
        config: of a `UNet2DModel`, from `described`.
        origin: for each of these names that of the file.
    """
    wanted = dict(expected(config))
    missing = sorted(wanted.keys() - shapes.keys())
    strange = sorted(origin.get(name, name) for name in shapes.keys() - wanted.keys())
    wrong = [
        f"{origin.get(name, name)} is {shapes[name]}, expected {wanted[name]}"
        for name in sorted(wanted.keys() & shapes.keys())
        if shapes[name] != wanted[name]
    ]
    indivisible = [w for w in config["block_out_channels"] if w % config["norm_num_groups"]]
    groups = f"{config['norm_num_groups']} groups of a norm do not divide the widths"
    parts = {
        "it lacks (in diffusers' names)": missing,
        "it has, unexpectedly,": strange,
        "wrong shapes:": wrong,
        groups: indivisible,
    }
    faults = [f"{what} {listed(found)}" for what, found in parts.items() if found]
    if faults:
        raise ValueError("; ".join(faults))


def expected(config: Config) -> Named:
    """The names and shapes of a network's tensors."""
    widths: Sequence[int] = config["block_out_channels"]
    layers, last = config["layers_per_block"], len(widths) - 1
    hidden = config["time_embedding_dim"] or 4 * widths[0]
    doubled = config["resnet_time_scale_shift"] == "scale_shift"
    block = _Block(hidden, doubled, config["downsample_type"] == "resnet")
    yield from _layer("conv_in", (widths[0], config["in_channels"], 3, 3))
    if config.get("time_embedding_type") == "learned":
        yield "time_proj.weight", (config["num_train_timesteps"], widths[0])
    yield from _layer("time_embedding.linear_1", (hidden, widths[0]))
    yield from _layer("time_embedding.linear_2", (hidden, hidden))
    if config["num_class_embeds"] is not None:
        yield "class_embedding.weight", (config["num_class_embeds"], hidden)
    skips = [widths[0]]
    channels = widths[0]
    for i, (width, name) in enumerate(zip(widths, config["down_block_types"], strict=True)):
        at = f"down_blocks.{i}"
        inputs = [channels, *[width] * (layers - 1)]
        yield from block.all(at, inputs, width, name.startswith("Attn"))
        skips += [width] * (layers if i == last else layers + 1)
        if i < last:
            yield from block.resampler(f"{at}.downsamplers.0", width)
        channels = width
    yield from block.all("mid_block", [channels] * 2, channels, attends=False)
    yield from _attention("mid_block.attentions.0", channels)
    for i, (width, name) in enumerate(zip(widths[::-1], config["up_block_types"], strict=True)):
        at = f"up_blocks.{i}"
        inputs: list[int] = []
        for _ in range(layers + 1):
            inputs.append(channels + skips.pop())
            channels = width
        yield from block.all(at, inputs, width, name.startswith("Attn"))
        if i < last:
            yield from block.resampler(f"{at}.upsamplers.0", width)
    yield from _layer("conv_norm_out", (widths[0],))
    yield from _layer("conv_out", (config["out_channels"], widths[0], 3, 3))


class _Block(NamedTuple):
    """What all blocks of a network share."""

    hidden: int
    doubled: bool
    by_resnet: bool

    def all(self, at: str, inputs: Sequence[int], width: int, attends: bool) -> Named:
        for j, channels in enumerate(inputs):
            yield from self.resnet(f"{at}.resnets.{j}", channels, width)
            if attends:
                yield from _attention(f"{at}.attentions.{j}", width)

    def resnet(self, at: str, channels: int, width: int) -> Named:
        yield from _layer(f"{at}.norm1", (channels,))
        yield from _layer(f"{at}.conv1", (width, channels, 3, 3))
        yield from _layer(f"{at}.time_emb_proj", ((1 + self.doubled) * width, self.hidden))
        yield from _layer(f"{at}.norm2", (width,))
        yield from _layer(f"{at}.conv2", (width, width, 3, 3))
        if channels != width:
            yield from _layer(f"{at}.conv_shortcut", (width, channels, 1, 1))

    def resampler(self, at: str, width: int) -> Named:
        if self.by_resnet:
            yield from self.resnet(at, width, width)
        else:
            yield from _layer(f"{at}.conv", (width, width, 3, 3))


def _attention(at: str, width: int) -> Named:
    yield from _layer(f"{at}.group_norm", (width,))
    for name in ("to_q", "to_k", "to_v", "to_out.0"):
        yield from _layer(f"{at}.{name}", (width, width))


def _layer(at: str, weight: Shape) -> Named:
    yield f"{at}.weight", weight
    yield f"{at}.bias", weight[:1]
