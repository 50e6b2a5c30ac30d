"""The other side: diffusers' networks and loops on torch, eager or through `torch.compile`.

Sampling is the loop of diffusers' DDIM pipeline. Training is the loop of its example for
unconditional generation: noise and timesteps drawn on the device, `add_noise`, mean squared error,
gradients clipped, AdamW, the schedule of the learning rate, `EMAModel` with its fast option. The
loss is read once a window, cuDNN tries out its kernels, and the batch is in pinned memory: all of
that favours torch.
"""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import torch
from diffusers.optimization import get_scheduler
from diffusers.training_utils import EMAModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from benchmarks.report import Case, cores

torch.set_num_threads(cores())
torch.set_float32_matmul_precision("high")  # on a GPU jax, too, takes TF32 for float32
torch.backends.cudnn.benchmark = True  # XLA tries out its kernels too

DRAWN: dict[Path, dict[str, Any]] = {}
"""Parts of pipelines by folder. To read them again, diffusers would draw random weights first."""

RATES = {"constant": "constant_with_warmup", "linear": "linear", "cosine": "cosine"}
"""diffusers' names of our schedules of the learning rate."""


def draw(config: Mapping[str, Any], folder: Path) -> Path:
    """A folder with a network of random weights; drawn once."""
    if not folder.exists():
        torch.manual_seed(0)
        diffusers.UNet2DModel(**config).save_pretrained(folder / "unet")
    return folder / "unet"


def draw_pipeline(configs: Mapping[str, Any], scheduler: Any, folder: Path, dtype: str) -> Path:
    """The folder, which has a tokenizer, with networks of random weights and a scheduler."""
    torch.manual_seed(0)
    networks: dict[str, torch.nn.Module] = {
        "unet": diffusers.UNet2DConditionModel(**configs["unet"]),
        "vae": diffusers.AutoencoderKL(**configs["vae"]),
        "text_encoder": CLIPTextModel(CLIPTextConfig(**configs["text_encoder"])),
    }
    DRAWN[folder] = {
        **{name: network.to(getattr(torch, dtype)).eval() for name, network in networks.items()},
        "tokenizer": CLIPTokenizer.from_pretrained(folder / "tokenizer"),
        "scheduler": diffusers.DDIMScheduler(**scheduler),
        **dict.fromkeys(("safety_checker", "feature_extractor")),
        "requires_safety_checker": False,
    }
    diffusers.StableDiffusionPipeline(**DRAWN[folder]).save_pretrained(folder)
    return folder


class _Network:
    """A network on its device, and what is called: it, or the compiled one."""

    def __init__(self, weights: Path, dtype: torch.dtype, device: str, compiled: bool):
        self.device = _device(device)
        unet = diffusers.UNet2DModel.from_pretrained(
            weights, torch_dtype=dtype, low_cpu_mem_usage=False
        )
        self.unet: Any = unet.to(self.device)
        torch.compiler.reset()  # or the second batch size would compile for any size, more slowly
        self.network: Any = torch.compile(self.unet) if compiled else self.unet

    def wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()


class Sampling(_Network):
    """The loop of diffusers' DDIM pipeline. The sample is in the network's precision."""

    def __init__(
        self, case: Case, device: str, weights: Path, scheduler: Any, noise: Any, *, compiled: bool
    ):
        dtype = getattr(torch, case.precision)
        super().__init__(weights, dtype, device, compiled)
        self.unet.eval()
        self.scheduler: Any = diffusers.DDIMScheduler(**scheduler)
        self.scheduler.set_timesteps(1000)
        self.x_T = _channels_first(noise).to(self.device, dtype)

    def run(self, units: int) -> None:
        self._loop(units)
        self.wait()

    def outputs(self) -> dict[str, Any]:
        with torch.inference_mode():
            output = self.network(self.x_T, self.scheduler.timesteps[0]).sample
        return {"network": _channels_last(output), "three steps": _channels_last(self._loop(3))}

    def _loop(self, units: int) -> torch.Tensor:
        x = self.x_T
        with torch.inference_mode():
            for timestep in self.scheduler.timesteps[:units]:
                output = self.network(x, timestep).sample
                x = self.scheduler.step(output, timestep, x).prev_sample
        return x


class TextToImage:
    """diffusers' pipeline. Its UNet has channels last, and alone goes through `torch.compile`.

    Args:
        case: what is made.
        device: "cpu" or "gpu".
        folder: that was drawn.
        call: arguments of every call but the latents.
        noise: (B, h, w, c) latents.
        mode: of `torch.compile`.
        compiled: whether it is used.
    """

    def __init__(
        self,
        case: Case,
        device: str,
        folder: Path,
        call: Mapping[str, Any],
        noise: np.ndarray,
        mode: str,
        *,
        compiled: bool,
    ):
        place, dtype = _device(device), getattr(torch, case.precision)
        pipe: Any = diffusers.StableDiffusionPipeline(**DRAWN[folder])
        pipe.set_progress_bar_config(disable=True)
        pipe.to(place).unet.to(memory_format=torch.channels_last)
        torch.compiler.reset()
        if compiled:
            pipe.unet = torch.compile(pipe.unet, mode=mode)
        latents = _channels_first(noise).to(place, dtype)
        self.pipe = partial(pipe, **call, latents=latents, return_dict=False)

    def run(self, units: int) -> None:
        self.pipe(num_inference_steps=units, output_type="np")

    def outputs(self) -> dict[str, Any]:
        latents, images = (
            self.pipe(num_inference_steps=3, output_type=kind)[0] for kind in ("latent", "np")
        )
        return {"latents": _channels_last(latents), "images": images}


class Training(_Network):
    """A plain training loop. Params are float32; bfloat16 is autocast's. `settings` are those of
    our run as dicts, `first` has the image, noise and timestep of the first update.
    """

    def __init__(
        self, case: Case, device: str, weights: Path, settings: Any, first: Any, *, compiled: bool
    ):
        super().__init__(weights, torch.float32, device, compiled)
        self.half = torch.bfloat16 if case.precision == "bfloat16" else None
        self.unet.train()
        self.scheduler: Any = diffusers.DDPMScheduler(**settings["diffusion"])
        image = _channels_first(first["image"])
        self.image = image.pin_memory() if self.device.type == "cuda" else image
        timestep = torch.tensor(first["timestep"]).long()
        self.draws = [(_channels_first(first["noise"]).to(self.device), timestep.to(self.device))]
        self.began: dict[str, float] = {}
        self._make_optimizer(settings["optimizer"], settings["loop"]["steps"])
        self.average = _average(self.unet, settings["ema"])

    def run(self, units: int) -> None:
        loss = norm = torch.tensor(torch.nan)
        for _ in range(units):
            loss, norm = self._update()
        numbers = {"loss": loss.item(), "grad_norm": norm.item()}  # of the last one
        self.began = self.began or numbers
        if not np.isfinite(numbers["loss"]):
            raise ValueError("the loss is no finite number")
        self.wait()

    def outputs(self) -> dict[str, Any]:
        return self.began

    def _update(self) -> tuple[torch.Tensor, torch.Tensor]:
        image = self.image.to(self.device, non_blocking=True)
        noise, timestep = self.draws.pop() if self.draws else self._draw(image)
        noisy = self.scheduler.add_noise(image, noise, timestep)
        with torch.autocast(self.device.type, self.half, enabled=self.half is not None):
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

    def _make_optimizer(self, settings: Mapping[str, Any], steps: int) -> None:
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


def _device(device: str) -> torch.device:
    if device == "gpu" and not torch.cuda.is_available():
        raise RuntimeError("torch sees no GPU")
    return torch.device("cuda" if device == "gpu" else "cpu")


def _average(unet: Any, settings: Mapping[str, Any]) -> EMAModel:
    warm = settings["power"] is not None
    return EMAModel(
        unet.parameters(),
        decay=settings["decay"],
        use_ema_warmup=warm,
        inv_gamma=settings["inv_gamma"],
        power=settings["power"] if warm else 2 / 3,  # 2 / 3 is EMAModel's default
        foreach=True,
    )


def _channels_first(x: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.array(x)).permute(0, 3, 1, 2).contiguous()


def _channels_last(x: torch.Tensor) -> np.ndarray:
    return x.permute(0, 2, 3, 1).float().cpu().numpy()
