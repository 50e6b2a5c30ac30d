"""The other side: diffusers' network and loop, eager, channels last, or through `torch.compile`."""

import time
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import torch

from benchmarks.models import SCHEDULER, STEPS
from benchmarks.worker import peak_resident


class TorchUNet(ABC):
    """A network of diffusers: what the runners of all tasks share."""

    def __init__(
        self,
        folder: str,
        config: dict[str, Any],
        precision: str,
        device: str,
        batch: int,
        threads: int,
        compiled: bool = False,
        channels_last: bool = False,
        compile_mode: str | None = None,
    ):
        if device == "gpu" and not torch.cuda.is_available():
            raise ValueError("torch sees no GPU")
        torch.set_num_threads(threads)
        torch.set_float32_matmul_precision("high")  # on a GPU jax, too, takes TF32 for float32
        self.folder, self.config, self.batch = Path(folder), config, batch
        self.device = torch.device("cuda" if device == "gpu" else "cpu")
        self.dtype = getattr(torch, precision)
        self.compiled, self.compile_mode = compiled, compile_mode
        self.layout = torch.channels_last if channels_last else torch.contiguous_format

    def prepare(self) -> int:
        torch.manual_seed(0)
        unet = diffusers.UNet2DModel(**self.config)
        unet.save_pretrained(self.folder / "unet")
        return sum(parameter.numel() for parameter in unet.parameters())

    def read(self, dtype: torch.dtype) -> tuple[torch.nn.Module, Any]:
        """The network on its device, and what is called: it, or the compiled one."""
        unet = diffusers.UNet2DModel.from_pretrained(self.folder / "unet", torch_dtype=dtype)
        unet = unet.to(self.device, memory_format=self.layout)
        return unet, torch.compile(unet, mode=self.compile_mode) if self.compiled else unet

    def noise(self) -> torch.Tensor:
        """The saved noise, channels first, on the host."""
        x_T = torch.from_numpy(np.load(self.folder / "x_T.npy")).permute(0, 3, 1, 2)
        return x_T.contiguous(memory_format=self.layout)

    def versions(self) -> dict[str, Any]:
        on_gpu = self.device.type == "cuda"
        return {
            "torch": torch.__version__,
            "diffusers": diffusers.__version__,
            "torch_threads": torch.get_num_threads(),
            "torch_cpu": torch.backends.cpu.get_cpu_capability(),
            "device": torch.cuda.get_device_name() if on_gpu else "cpu",
        }

    def first(self) -> float:
        return self.run("loop", 1) - self.run("loop", 1)

    def run(self, loop: str, evaluations: int) -> float:
        if loop != "loop":
            raise ValueError(f"torch has no loop {loop!r}")
        self._wait()
        began = time.perf_counter()
        self._loop(evaluations)
        self._wait()
        return time.perf_counter() - began

    def memory(self) -> dict[str, int]:
        found = {"process": peak_resident()}
        if self.device.type == "cuda":
            found["device"] = torch.cuda.max_memory_allocated()
        return found

    @abstractmethod
    def _loop(self, evaluations: int) -> Any:
        """So many evaluations, or updates."""

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()


class TorchRunner(TorchUNet):
    """See `benchmarks.worker.Runner`. Its only loop is the one of diffusers' DDIM pipeline."""

    def load(self) -> dict[str, Any]:
        unet, self.network = self.read(self.dtype)
        unet.eval()
        self.scheduler = diffusers.DDIMScheduler(**SCHEDULER)
        self.scheduler.set_timesteps(STEPS)
        self.x_T = self.noise().to(self.device, self.dtype)
        return self.versions()

    @torch.inference_mode()
    def outputs(self, evaluations: int, path: str) -> None:
        output = self.network(self.x_T, self.scheduler.timesteps[0]).sample
        np.savez(path, output=_host(output), sample=_host(self._loop(evaluations)))

    @torch.inference_mode()
    def _loop(self, evaluations: int) -> torch.Tensor:
        x = self.x_T
        for timestep in self.scheduler.timesteps[:evaluations]:
            output = self.network(x, timestep).sample
            x = self.scheduler.step(output, timestep, x).prev_sample
        return x


def _host(x: torch.Tensor) -> np.ndarray[Any, Any]:
    """Channels last and float32, as our arrays are."""
    return x.permute(0, 2, 3, 1).float().cpu().numpy()
