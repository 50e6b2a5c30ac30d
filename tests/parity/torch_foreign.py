"""Other libraries' UNets as torch functions of a state dict, written from the papers' descriptions.

What a network has is what its state dict has; only settings are arguments. The layouts of the
package are not used here.
"""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch.nn import functional as F

State = Mapping[str, torch.Tensor]


class Net:
    """A state dict, and the layers that read it."""

    def __init__(self, state: State, eps: float) -> None:
        self.state, self.eps = state, eps

    def has(self, name: str) -> bool:
        return f"{name}.weight" in self.state

    def of(self, name: str) -> tuple[torch.Tensor, torch.Tensor]:
        return self.state[f"{name}.weight"], self.state[f"{name}.bias"]

    def linear(self, name: str, x: torch.Tensor) -> torch.Tensor:
        return F.linear(x, *self.of(name))

    def conv(self, name: str, x: torch.Tensor, **options: Any) -> torch.Tensor:
        return F.conv2d(x, *self.of(name), **options)

    def norm(self, name: str, x: torch.Tensor) -> torch.Tensor:
        return F.group_norm(x, 32, *self.of(name), eps=self.eps)

    def pointwise(self, name: str, x: torch.Tensor) -> torch.Tensor:
        """A convolution of kernel 1, stored with 0, 1 or 2 axes of space."""
        weight, bias = self.of(name)
        return torch.einsum("oc,bcn->bon", weight.flatten(1), x) + bias[:, None]

    def mlp(self, first: str, second: str, x: torch.Tensor) -> torch.Tensor:
        return self.linear(second, F.silu(self.linear(first, x)))


def attended(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """(b, c, n) each, one head."""
    weights = torch.softmax(q.transpose(1, 2) @ k / math.sqrt(q.shape[1]), dim=-1)
    return v @ weights.transpose(1, 2)


def doubled(x: torch.Tensor) -> torch.Tensor:
    return x.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)


# Ho et al. 2020, appendix B: ermongroup/ddim and pesser/pytorch_diffusion.


def ddpm(state: State, x: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
    net = Net(state, eps=1e-6)
    width = state["conv_in.weight"].shape[0]
    half = width // 2
    frequencies = torch.exp(torch.arange(half) * (-math.log(10000.0) / (half - 1)))
    angles = timestep[:, None] * frequencies
    emb = net.mlp("temb.dense.0", "temb.dense.1", torch.cat([angles.sin(), angles.cos()], 1))
    levels = 1 + max(int(name.split(".")[1]) for name in state if name.startswith("down."))
    layers = len({name.split(".")[3] for name in state if name.startswith("down.0.block.")})

    def resnet(at: str, h: torch.Tensor) -> torch.Tensor:
        y = net.conv(f"{at}.conv1", F.silu(net.norm(f"{at}.norm1", h)), padding=1)
        y = y + net.linear(f"{at}.temb_proj", F.silu(emb))[:, :, None, None]
        y = net.conv(f"{at}.conv2", F.silu(net.norm(f"{at}.norm2", y)), padding=1)
        short = net.conv(f"{at}.nin_shortcut", h) if net.has(f"{at}.nin_shortcut") else h
        return short + y

    def attention(at: str, h: torch.Tensor) -> torch.Tensor:
        flat = net.norm(f"{at}.norm", h).flatten(2)
        q, k, v = (net.pointwise(f"{at}.{name}", flat) for name in "qkv")
        return h + net.pointwise(f"{at}.proj_out", attended(q, k, v)).reshape(h.shape)

    def layer(at: str, j: int, h: torch.Tensor) -> torch.Tensor:
        h = resnet(f"{at}.block.{j}", h)
        return attention(f"{at}.attn.{j}", h) if net.has(f"{at}.attn.{j}.q") else h

    h = net.conv("conv_in", x, padding=1)
    skips = [h]
    for i in range(levels):
        for j in range(layers):
            h = layer(f"down.{i}", j, h)
            skips.append(h)
        if i < levels - 1:
            padded = F.pad(h, (0, 1, 0, 1))  # right and bottom
            h = net.conv(f"down.{i}.downsample.conv", padded, stride=2)
            skips.append(h)
    h = resnet("mid.block_2", attention("mid.attn_1", resnet("mid.block_1", h)))
    for i in reversed(range(levels)):
        for j in range(layers + 1):
            h = layer(f"up.{i}", j, torch.cat([h, skips.pop()], dim=1))
        if i > 0:
            h = net.conv(f"up.{i}.upsample.conv", doubled(h), padding=1)
    return net.conv("conv_out", F.silu(net.norm("norm_out", h)), padding=1)


# Dhariwal & Nichol 2021, appendix: improved-diffusion, guided-diffusion, consistency models.


def openai(
    state: State,
    x: torch.Tensor,
    told: torch.Tensor,
    labels: torch.Tensor | None = None,
    *,
    order: str,
    heads: int | None = None,
    head_channels: int | None = None,
) -> torch.Tensor:
    """`told` is the timestep as the network is told it."""
    net = Net(state, eps=1e-5)
    half = state["time_embed.0.weight"].shape[1] // 2
    frequencies = torch.exp(-math.log(10000.0) * torch.arange(half) / half)
    angles = told[:, None] * frequencies
    emb = net.mlp("time_embed.0", "time_embed.2", torch.cat([angles.cos(), angles.sin()], 1))
    if labels is not None:
        emb = emb + state["label_emb.weight"][labels]

    def resnet(at: str, h: torch.Tensor, resample: Any = None) -> torch.Tensor:
        y = F.silu(net.norm(f"{at}.in_layers.0", h))
        if resample is not None:
            y, h = resample(y), resample(h)
        y = net.conv(f"{at}.in_layers.2", y, padding=1)
        added = net.linear(f"{at}.emb_layers.1", F.silu(emb))[:, :, None, None]
        if added.shape[1] == 2 * y.shape[1]:
            scale, shift = added.split(y.shape[1], dim=1)
            y = net.norm(f"{at}.out_layers.0", y) * (1 + scale) + shift
        else:
            y = net.norm(f"{at}.out_layers.0", y + added)
        y = net.conv(f"{at}.out_layers.3", F.silu(y), padding=1)
        skip = f"{at}.skip_connection"
        return (net.conv(skip, h) if net.has(skip) else h) + y

    def attention(at: str, h: torch.Tensor) -> torch.Tensor:
        b, c = h.shape[:2]
        count = heads or c // head_channels
        qkv = net.pointwise(f"{at}.qkv", net.norm(f"{at}.norm", h).flatten(2))
        if order == "legacy":
            parts = qkv.reshape(b, count, 3, c // count, -1)
            q, k, v = (parts[:, :, i].flatten(0, 1) for i in range(3))
        else:
            parts = qkv.reshape(b, 3, count, c // count, -1)
            q, k, v = (parts[:, i].flatten(0, 1) for i in range(3))
        mixed = attended(q, k, v).reshape(b, c, -1)
        return h + net.pointwise(f"{at}.proj_out", mixed).reshape(h.shape)

    def block(at: str, h: torch.Tensor, resample: Any) -> torch.Tensor:
        """The modules of a block; the residual one that resamples has no second one after it."""
        for slot in range(3):
            inner = f"{at}.{slot}"
            if net.has(f"{inner}.qkv"):
                h = attention(inner, h)
            elif net.has(f"{inner}.in_layers.0"):
                h = resnet(inner, h, resample if resampling(at, slot) else None)
            elif net.has(f"{inner}.op"):
                h = net.conv(f"{inner}.op", h, stride=2, padding=1)
            elif net.has(f"{inner}.conv"):
                h = net.conv(f"{inner}.conv", doubled(h), padding=1)
        return h

    ups = [
        name
        for name in state
        if name.startswith("output_blocks.")
        and name.split(".")[2] != "0"
        and (".conv.weight" in name or name.endswith("in_layers.0.weight"))
    ]
    blocks = 1 + max(int(n.split(".")[1]) for n in state if n.startswith("input_blocks."))
    size = blocks // (len(ups) + 1)

    def resampling(at: str, slot: int) -> bool:
        side, number = at.split(".")
        return slot > 0 if side == "output_blocks" else int(number) % size == 0

    h = net.conv("input_blocks.0.0", x, padding=1)
    skips = [h]
    for number in range(1, blocks):
        h = block(f"input_blocks.{number}", h, lambda y: F.avg_pool2d(y, 2))
        skips.append(h)
    h = resnet("middle_block.0", h)
    h = resnet("middle_block.2", attention("middle_block.1", h))
    for number in range(blocks):
        h = block(f"output_blocks.{number}", torch.cat([h, skips.pop()], dim=1), doubled)
    return net.conv("out.2", F.silu(net.norm("out.0", h)), padding=1)
