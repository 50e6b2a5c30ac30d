"""The other side of training: a plain torch loop, as diffusers' example for unconditional
generation has it.
"""

import json
from typing import Any

import diffusers
import numpy as np
import torch
from diffusers.optimization import get_scheduler
from diffusers.training_utils import EMAModel

from benchmarks.torch_runner import TorchUNet

RATES = {"constant": "constant_with_warmup", "linear": "linear", "cosine": "cosine"}
"""diffusers' names of our schedules of the learning rate."""


class TorchTraining(TorchUNet):
    """See `benchmarks.worker.Runner`. Params are float32; bfloat16 is autocast's."""

    def load(self) -> dict[str, Any]:
        settings = json.loads((self.folder / "settings.json").read_text())
        torch.backends.cudnn.benchmark = True  # XLA tries out its kernels too
        self.unet, self.network = self.read(torch.float32)
        self.unet.train()
        self.scheduler = diffusers.DDPMScheduler(**settings["diffusion"])
        self._make_optimizer(settings["optimizer"], settings["loop"]["steps"])
        self._make_average(settings["ema"])
        self.draws: list[tuple[torch.Tensor, torch.Tensor]] = []
        self.began: dict[str, float] = {}
        image = self.noise()
        self.image = image.pin_memory() if self.device.type == "cuda" else image
        return self.versions()

    def first(self) -> float:
        drawn = np.load(self.folder / "draws.npz")
        noise = torch.from_numpy(drawn["noise"]).permute(0, 3, 1, 2).contiguous()
        timestep = torch.from_numpy(drawn["timestep"]).long()
        self.draws = [(noise.to(self.device), timestep.to(self.device))]
        return super().first()

    def outputs(self, _evaluations: int, path: str) -> None:
        np.savez(path, **self.began)

    def _loop(self, evaluations: int) -> None:
        loss = norm = torch.tensor(torch.nan)
        for _ in range(evaluations):
            loss, norm = self._update()
        if not torch.isfinite(loss):
            raise ValueError("the loss is no finite number")
        if not self.began:  # the first window is the first update
            self.began = {"loss": loss.item(), "grad_norm": norm.item()}

    def _update(self) -> tuple[torch.Tensor, torch.Tensor]:
        image = self.image.to(self.device, non_blocking=True)
        noise, timestep = self.draws.pop() if self.draws else self._draw(image)
        noisy = self.scheduler.add_noise(image, noise, timestep)
        half = self.dtype != torch.float32
        with torch.autocast(self.device.type, self.dtype if half else None, enabled=half):
            output = self.network(noisy, timestep).sample
        loss = torch.nn.functional.mse_loss(output.float(), noise)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(self.unet.parameters(), self.clip_norm)
        self.optimizer.step()
        self.rate.step()
        self.optimizer.zero_grad()
        self.average.step(self.unet.parameters())
        return loss.detach(), norm

    def _draw(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        steps = self.scheduler.config["num_train_timesteps"]
        timestep = torch.randint(0, steps, (len(image),), device=self.device)
        return torch.randn_like(image), timestep

    def _make_optimizer(self, settings: dict[str, Any], steps: int) -> None:
        self.clip_norm = settings["clip_norm"]
        self.optimizer = torch.optim.AdamW(
            self.unet.parameters(),
            lr=settings["learning_rate"],
            betas=(settings["beta1"], settings["beta2"]),
            eps=settings["eps"],
            weight_decay=settings["weight_decay"],
        )
        self.rate = get_scheduler(
            RATES[settings["decay"]],
            self.optimizer,
            num_warmup_steps=settings["warmup_steps"],
            num_training_steps=steps,
        )

    def _make_average(self, settings: dict[str, Any]) -> None:
        warm = settings["power"] is not None
        self.average = EMAModel(
            self.unet.parameters(),
            decay=settings["decay"],
            use_ema_warmup=warm,
            inv_gamma=settings["inv_gamma"],
            power=settings["power"] if warm else 2 / 3,
            foreach=True,
        )
