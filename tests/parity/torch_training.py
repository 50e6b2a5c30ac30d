"""Training as torch and diffusers do it: a plain loop, whose every line is theirs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from diffusers import DDPMScheduler
from diffusers.training_utils import EMAModel

Batch = Mapping[str, np.ndarray]
"""`image` and `noise` (B, H, W, C), `timestep` (B,)."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What a run is told beside its batches."""

    clip_norm: float
    ema_decay: float
    ema_power: float | None = None
    """Of the average's warm-up; None: constant decay."""
    ema_inv_gamma: float = 1.0
    learning_rate: float = 1e-3
    warmup_steps: int = 8
    beta2: float = 0.999
    weight_decay: float = 0.0


class Trained(NamedTuple):
    """Tensors by name, and each step's gradient norm before clipping."""

    params: dict[str, np.ndarray]
    ema: dict[str, np.ndarray]
    norms: list[float]


class ConstantEMA:
    """ema <- decay ema + (1 - decay) params; diffusers' EMAModel always has some warm-up."""

    def __init__(self, parameters: Sequence[torch.Tensor], decay: float):
        self.decay = decay
        self.shadow_params = [parameter.detach().clone() for parameter in parameters]

    @torch.no_grad()
    def step(self, parameters: Sequence[torch.Tensor]) -> None:
        for mean, parameter in zip(self.shadow_params, parameters, strict=True):
            mean.mul_(self.decay).add_(parameter, alpha=1 - self.decay)


def train(
    model: Any, scheduler: DDPMScheduler, batches: Sequence[Batch], recipe: Recipe
) -> Trained:
    """One step a batch; the model is changed."""
    model.train().requires_grad_(True)
    names, parameters = zip(*model.named_parameters(), strict=True)
    optimiser = torch.optim.AdamW(
        parameters,
        recipe.learning_rate,
        betas=(0.9, recipe.beta2),
        weight_decay=recipe.weight_decay,
    )
    rise = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda k: min(1.0, k / recipe.warmup_steps))
    ema = average(parameters, recipe)
    norms = []
    for batch in batches:
        loss = loss_of(model, scheduler, batch)
        optimiser.zero_grad()
        loss.backward()
        norms.append(float(torch.nn.utils.clip_grad_norm_(parameters, recipe.clip_norm)))
        optimiser.step()
        rise.step()
        ema.step(parameters)
    return Trained(
        {name: value.detach().numpy() for name, value in zip(names, parameters, strict=True)},
        {name: value.numpy() for name, value in zip(names, ema.shadow_params, strict=True)},
        norms,
    )


def average(parameters: Sequence[torch.Tensor], recipe: Recipe) -> Any:
    if recipe.ema_power is None:
        return ConstantEMA(parameters, recipe.ema_decay)
    return EMAModel(
        parameters,
        decay=recipe.ema_decay,
        use_ema_warmup=True,
        inv_gamma=recipe.ema_inv_gamma,
        power=recipe.ema_power,
    )


def loss_of(model: Any, scheduler: DDPMScheduler, batch: Batch) -> torch.Tensor:
    x0, noise = (_channels_first(batch[name]) for name in ("image", "noise"))
    timestep = torch.from_numpy(batch["timestep"]).long()
    output = model(scheduler.add_noise(x0, noise, timestep), timestep).sample
    kind = scheduler.config.prediction_type
    if kind == "epsilon":
        target = noise
    elif kind == "sample":
        target = x0
    else:
        target = scheduler.get_velocity(x0, noise, timestep)
    return torch.nn.functional.mse_loss(output, target)


def _channels_first(images: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(np.moveaxis(images, -1, 1)))
