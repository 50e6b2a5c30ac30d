"""Small checkpoint folders for the tests of conversion, and what their results are compared by."""

import json
import tracemalloc
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from weights_convert.tensors import Stored

ROOT = Path(__file__).parents[2]
DIGITS = ROOT / "tests" / "data" / "digits-ddpm"
"""A DDPM trained on the digits with PyTorch diffusers, float32."""
WEIGHTS = "diffusion_pytorch_model.safetensors"


def numbered(*shape: int) -> np.ndarray[Any, Any]:
    return np.arange(np.prod(shape), dtype=np.float32).reshape(shape)


def bits(arrays: Mapping[Any, Any]) -> dict[Any, tuple[str, tuple[int, ...], bytes]]:
    """The dtype, the shape and the bytes of each array: NaN and the sign of zero count."""
    return {name: (str(one.dtype), one.shape, one.tobytes()) for name, one in arrays.items()}


def peak_memory(run: Callable[[], object]) -> int:
    """The most bytes that Python has at once while it runs."""
    tracemalloc.start()
    try:
        run()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def unread(*shape: int) -> Stored:
    """A tensor of which only the shape may be asked for."""

    def read() -> Any:
        raise AssertionError("only shapes are needed")

    return Stored(shape, np.dtype(np.float32), read)


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def component(folder: Path, **config: Any) -> Path:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"_class_name": "UNet2DModel"} | config))
    state = {"conv_in.bias": numbered(3), "conv_in.weight": numbered(3, 1, 3, 3)}
    save_file(state, folder / WEIGHTS)
    return folder


def pipeline(folder: Path, method: str = "DDIMScheduler", **index: Any) -> Path:
    component(folder / "unet")
    (folder / "scheduler").mkdir()
    config = {"_class_name": method, "num_train_timesteps": 10}
    (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps(config))
    if index:
        (folder / "model_index.json").write_text(json.dumps(index))
    return folder


INDEX = {
    "_class_name": "DDIMPipeline",
    "_diffusers_version": "0.1",
    "unet": ["diffusers", "UNet2DModel"],
    "scheduler": ["diffusers", "DDIMScheduler"],
}
