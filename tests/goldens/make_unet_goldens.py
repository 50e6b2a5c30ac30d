"""Writes unets.npz: outputs of diffusers' UNet2DModel, for the suite without torch.

    python -m tests.goldens.make_unet_goldens

The weights are random and exact in float16, so that they are stored in half the space and both
sides compute with the same numbers. Those of large networks are rounded to few values, which
compress well. `versions` in the file says what made it.
"""

from typing import Any

import diffusers
import numpy as np
import torch

from tests.goldens.unet_goldens import CONFIGS, FILE
from tests.parity import torch_unet

STEPS = {"ncsnpp": 2.0**-7}
"""The distance of the values that a network's weights are rounded to."""


def inputs(config: dict[str, Any], rng: np.random.Generator) -> dict[str, np.ndarray]:
    x = rng.standard_normal((2, 8, 8, config.get("in_channels", 3))).astype(np.float32)
    kind = config.get("time_embedding_type", "positional")
    timestep = {
        "positional": np.array([7.0, 999.0], np.float32),
        "fourier": np.array([0.3, 20.0], np.float32),
        "learned": np.array([0, 19]),
    }[kind]
    labels = {
        None: np.array([4, 0]) if "num_class_embeds" in config else None,
        "timestep": np.array([3.0, 0.5], np.float32),
        "identity": rng.standard_normal((2, config["time_embedding_dim"])).astype(np.float32),
    }[config.get("class_embed_type")]
    given = {"x": x, "timestep": timestep}
    return given if labels is None else given | {"labels": labels}


def main() -> None:
    stored: dict[str, Any] = {
        "versions": np.array(f"diffusers {diffusers.__version__}, torch {torch.__version__}")
    }
    for seed, (name, config) in enumerate(CONFIGS.items()):
        model = torch_unet.make(config, seed)
        for parameter in model.parameters():
            step = STEPS.get(name)
            rounded = parameter if step is None else step * torch.round(parameter / step)
            parameter.copy_(rounded.half().float())
        given = inputs(config, np.random.default_rng(seed))
        output = torch_unet.call(model, given["x"], given["timestep"], given.get("labels"))
        weights = {
            f"w/{key}": value.astype(np.float16) for key, value in torch_unet.tensors(model).items()
        }
        case = {**weights, **given, "output": output}
        stored |= {f"{name}/{key}": value for key, value in case.items()}
    np.savez_compressed(FILE, **stored)


if __name__ == "__main__":
    main()
