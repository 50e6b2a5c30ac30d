"""Checkpoints of other libraries' unconditional UNets: random tensors under their names.

The constructors follow the original code's description: which layers there are, in which order, and
with which shapes. They are not those of the package.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch_files
from safetensors.numpy import save_file

Arrays = dict[str, np.ndarray[Any, Any]]
Shapes = Iterator[tuple[str, tuple[int, ...]]]


def layer(name: str, *weight: int) -> Shapes:
    yield f"{name}.weight", weight
    yield f"{name}.bias", weight[:1]


def ddpm_shapes(
    ch: int = 32,
    mult: Sequence[int] = (1, 2),
    layers: int = 1,
    attends: Sequence[int] = (1,),
    channels: tuple[int, int] = (3, 3),
) -> Shapes:
    """The UNet of ermongroup/ddim; `attends` are levels."""

    def resnet(at: str, taken: int, made: int) -> Shapes:
        yield from layer(f"{at}.norm1", taken)
        yield from layer(f"{at}.conv1", made, taken, 3, 3)
        yield from layer(f"{at}.temb_proj", made, 4 * ch)
        yield from layer(f"{at}.norm2", made)
        yield from layer(f"{at}.conv2", made, made, 3, 3)
        if taken != made:
            yield from layer(f"{at}.nin_shortcut", made, taken, 1, 1)

    def attention(at: str, width: int) -> Shapes:
        yield from layer(f"{at}.norm", width)
        for name in ("q", "k", "v", "proj_out"):
            yield from layer(f"{at}.{name}", width, width, 1, 1)

    yield from layer("temb.dense.0", 4 * ch, ch)
    yield from layer("temb.dense.1", 4 * ch, 4 * ch)
    yield from layer("conv_in", ch, channels[0], 3, 3)
    width, skips = ch, [ch]
    for i, one in enumerate(mult):
        for j in range(layers):
            yield from resnet(f"down.{i}.block.{j}", width, ch * one)
            width = ch * one
            if i in attends:
                yield from attention(f"down.{i}.attn.{j}", width)
            skips.append(width)
        if i < len(mult) - 1:
            yield from layer(f"down.{i}.downsample.conv", width, width, 3, 3)
            skips.append(width)
    yield from resnet("mid.block_1", width, width)
    yield from attention("mid.attn_1", width)
    yield from resnet("mid.block_2", width, width)
    for i in reversed(range(len(mult))):
        for j in range(layers + 1):
            yield from resnet(f"up.{i}.block.{j}", width + skips.pop(), ch * mult[i])
            width = ch * mult[i]
            if i in attends:
                yield from attention(f"up.{i}.attn.{j}", width)
        if i > 0:
            yield from layer(f"up.{i}.upsample.conv", width, width, 3, 3)
    yield from layer("norm_out", width)
    yield from layer("conv_out", channels[1], width, 3, 3)


def openai_shapes(
    ch: int = 32,
    mult: Sequence[float] = (1, 2),
    layers: int = 1,
    attends: Sequence[int] = (1,),
    channels: tuple[int, int] = (3, 3),
    classes: int | None = None,
    scale_shift: bool = True,
    by_resnet: bool = False,
) -> Shapes:
    """The UNet of improved-diffusion and guided-diffusion; `attends` are levels."""

    def resnet(at: str, taken: int, made: int) -> Shapes:
        yield from layer(f"{at}.in_layers.0", taken)
        yield from layer(f"{at}.in_layers.2", made, taken, 3, 3)
        yield from layer(f"{at}.emb_layers.1", (1 + scale_shift) * made, 4 * ch)
        yield from layer(f"{at}.out_layers.0", made)
        yield from layer(f"{at}.out_layers.3", made, made, 3, 3)
        if taken != made:
            yield from layer(f"{at}.skip_connection", made, taken, 1, 1)

    def attention(at: str, width: int) -> Shapes:
        yield from layer(f"{at}.norm", width)
        yield from layer(f"{at}.qkv", 3 * width, width, 1)
        yield from layer(f"{at}.proj_out", width, width, 1)

    yield from layer("time_embed.0", 4 * ch, ch)
    yield from layer("time_embed.2", 4 * ch, 4 * ch)
    if classes is not None:
        yield "label_emb.weight", (classes, 4 * ch)
    width = int(mult[0] * ch)
    yield from layer("input_blocks.0.0", width, channels[0], 3, 3)
    skips, number = [width], 1
    for i, one in enumerate(mult):
        made = int(one * ch)
        for _ in range(layers):
            yield from resnet(f"input_blocks.{number}.0", width, made)
            width = made
            if i in attends:
                yield from attention(f"input_blocks.{number}.1", width)
            skips.append(width)
            number += 1
        if i < len(mult) - 1:
            if by_resnet:
                yield from resnet(f"input_blocks.{number}.0", width, width)
            else:
                yield from layer(f"input_blocks.{number}.0.op", width, width, 3, 3)
            skips.append(width)
            number += 1
    yield from resnet("middle_block.0", width, width)
    yield from attention("middle_block.1", width)
    yield from resnet("middle_block.2", width, width)
    number = 0
    for i in reversed(range(len(mult))):
        made = int(mult[i] * ch)
        for j in range(layers + 1):
            yield from resnet(f"output_blocks.{number}.0", width + skips.pop(), made)
            width = made
            if i in attends:
                yield from attention(f"output_blocks.{number}.1", width)
            if i > 0 and j == layers:
                at = f"output_blocks.{number}.{1 + (i in attends)}"
                if by_resnet:
                    yield from resnet(at, width, width)
                else:
                    yield from layer(f"{at}.conv", width, width, 3, 3)
            number += 1
    yield from layer("out.0", width)
    yield from layer("out.2", channels[1], width, 3, 3)


def random_state(shapes: Shapes, seed: int = 0, dtype: Any = np.float32) -> Arrays:
    """Values of which each matters: norms around one, weights by their fan-in."""
    rng = np.random.default_rng(seed)

    def draw(name: str, shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
        values = rng.standard_normal(shape)
        if len(shape) == 1:
            around = 1.0 if name.endswith(".weight") else 0.0
            return (around + 0.3 * values).astype(dtype)
        return (values / np.sqrt(np.prod(shape[1:]))).astype(dtype)

    return {name: draw(name, shape) for name, shape in shapes}


def save(path: Path, state: Arrays) -> Path:
    """As safetensors, or as torch.save."""
    if path.suffix == ".safetensors":
        save_file(state, path)
        return path
    return torch_files.save(path, state)


def save_nested(path: Path, parts: dict[str, Arrays], **others: bytes) -> Path:
    """As torch.save of a dict of state dicts, and of other things given as opcodes."""
    inner, records = dictionaries(parts)
    return torch_files.write_zip(path, torch_files.state_dict({**inner, **others}), records)


def save_list(path: Path, model: Arrays, ema: Arrays | None) -> Path:
    """As ermongroup/ddim saves: [model, optimizer, epoch, step, ema]."""
    wrapped = {f"module.{name}": one for name, one in model.items()}
    dicts, records = dictionaries({"model": wrapped, "ema": ema or {}})
    size = len(records["data/0"]) // 4
    moment = torch_files.tensor("0", "FloatStorage", size, 0, (1,), (1,))
    state = b"}(K\x00" + torch_files.dictionary({"exp_avg": moment}) + b"u"
    optimizer = torch_files.dictionary({"state": state})
    steps = torch_files.number(3) + torch_files.number(790_000)
    last = dicts["ema"] if ema else b""
    pickled = b"\x80\x02](" + dicts["model"] + optimizer + steps + last + b"e."
    return torch_files.write_zip(path, pickled, records)


def dictionaries(parts: dict[str, Arrays]) -> tuple[dict[str, bytes], dict[str, bytes]]:
    """The opcodes of state dicts, and the records of their storages."""
    flat = {f"{part}/{name}": one for part, state in parts.items() for name, one in state.items()}
    items, records = torch_files.entries(flat)
    inner = {
        part: {n.partition("/")[2]: op for n, op in items.items() if n.startswith(f"{part}/")}
        for part in parts
    }
    return {part: torch_files.dictionary(ops) for part, ops in inner.items()}, records
