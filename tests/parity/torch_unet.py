"""diffusers' UNets with weights of which every one matters, and called in our layout."""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
import torch
from diffusers import UNet2DConditionModel as ConditionalTorchUNet
from diffusers import UNet2DModel as TorchUNet

from ddpm_jax.models import UNet2DModel
from weights_convert import to_flax


def make(config: Mapping[str, Any], seed: int = 0, kind: Any = TorchUNet) -> Any:
    """In evaluation mode; norms and biases are moved off their zeros and ones."""
    torch.manual_seed(seed)
    model = kind(**config).eval().requires_grad_(False)
    for name, parameter in model.named_parameters():
        if name == "time_proj.weight" and parameter.ndim == 1:
            # At its own scale, 16, an ulp of the logarithm becomes 1e-4 in the angle.
            parameter /= 16
        elif parameter.ndim == 1:
            parameter += 0.2 * torch.randn_like(parameter)
    return model


def tensors(model: torch.nn.Module) -> dict[str, np.ndarray]:
    return {name: tensor.numpy() for name, tensor in model.state_dict().items()}


def call(model: TorchUNet, x: Any, timestep: Any, labels: Any = None) -> np.ndarray:
    """Channels last, in and out."""
    images = torch.from_numpy(np.ascontiguousarray(np.moveaxis(x, -1, 1)))
    labels = None if labels is None else torch.as_tensor(labels)
    with torch.no_grad():
        output = model(images, torch.as_tensor(timestep), labels).sample
    return np.moveaxis(output.numpy(), 1, -1)


def pair(config: Mapping[str, Any]) -> tuple[TorchUNet, UNet2DModel, Any]:
    """diffusers' network, ours, and its params."""
    peer = make(config)
    return peer, UNet2DModel(**config), to_flax(tensors(peer))


def relative(ours: Any, theirs: np.ndarray) -> float:
    """The largest difference over the largest value."""
    assert ours.shape == theirs.shape
    return float(np.abs(ours - theirs).max() / np.abs(theirs).max())


def difference(config: Mapping[str, Any], x: Any, timestep: Any, labels: Any = None) -> float:
    """Of the outputs of both networks, from the same random weights."""
    peer, model, params = pair(config)
    ours = jax.jit(model.apply)({"params": params}, x, timestep, labels)
    return relative(ours, call(peer, x, timestep, labels))


def call_conditional(
    model: ConditionalTorchUNet, x: Any, timestep: Any, context: Any
) -> np.ndarray:
    """Channels last, in and out."""
    images = torch.from_numpy(np.ascontiguousarray(np.moveaxis(x, -1, 1)))
    with torch.no_grad():
        output = model(images, torch.as_tensor(timestep), torch.from_numpy(context)).sample
    return np.moveaxis(output.numpy(), 1, -1)
