"""Checkpoints of other libraries: what their network computes, what diffusers computes with the
converted folder, and what ours does.
"""

from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from weights import foreign_files as foreign

torch: Any = pytest.importorskip("torch")
diffusers: Any = pytest.importorskip("diffusers")

from parity import torch_foreign  # noqa: E402

from ddpm_jax.models import UNet2DModel  # noqa: E402
from weights_convert import Settings, SingleOptions, convert  # noqa: E402

# Largest difference over largest output, float32. Measured at most 2e-6 here.
PARITY = 1e-5

X = np.random.default_rng(5).standard_normal((2, 3, 16, 16)).astype(np.float32)
TIMES = np.array([3, 871])


def compared(folder: Path, wanted: Any, x: np.ndarray, times: Any, labels: Any = None) -> None:
    """diffusers' and our network of a folder against the original's output."""
    theirs = diffusers.UNet2DModel.from_pretrained(folder, subfolder="unet").eval()
    with torch.no_grad():
        peer = theirs(torch.from_numpy(x), torch.as_tensor(times), labels).sample.numpy()
    model, params = UNet2DModel.from_pretrained(folder)
    given = None if labels is None else np.asarray(labels)
    ours = jax.jit(model.apply)({"params": params}, x.transpose(0, 2, 3, 1), times, given)
    wanted = wanted.numpy()
    for found in (peer, np.moveaxis(np.asarray(ours), -1, 1)):
        assert found.shape == wanted.shape
        assert np.abs(found - wanted).max() / np.abs(wanted).max() <= PARITY


def tensors(state: foreign.Arrays) -> dict[str, Any]:
    return {name: torch.from_numpy(one) for name, one in state.items()}


@pytest.mark.parametrize(
    "shape",
    [
        {"mult": (1, 2, 2), "layers": 2, "attends": (1,)},
        {"mult": (1, 1), "attends": (0, 1), "channels": (1, 1)},
        {"mult": (1,), "attends": ()},
    ],
)
def test_ddpm(tmp_path: Path, shape: dict[str, Any]):
    state = foreign.random_state(foreign.ddpm_shapes(**shape))
    path = foreign.save(tmp_path / "model-790000.ckpt", state)
    settings = Settings(sample_size=16, variance_type="fixed_large")
    convert(path, tmp_path / "out", single=SingleOptions(settings=settings))
    x = X[:, : shape.get("channels", (3,))[0]]
    wanted = torch_foreign.ddpm(tensors(state), torch.from_numpy(x), torch.from_numpy(TIMES))
    compared(tmp_path / "out", wanted, x, TIMES)


FOUR = {"num_heads": 4}
OF_8, OF_16 = {"num_head_channels": 8}, {"num_head_channels": 16}
OLD, NEW = {"head_order": "legacy"}, {"head_order": "new"}
OPENAI: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"mult": (1, 2, 2), "layers": 2}, {**FOUR, **OLD}),
    ({"mult": (1, 2, 2), "layers": 2}, {**FOUR, **NEW}),
    ({"attends": (0, 1)}, {**OF_16, **OLD}),
    ({"mult": (1, 2), "attends": (0, 1), "by_resnet": True}, {**OF_8, **NEW}),
    (
        {"mult": (1, 1, 2), "layers": 2, "attends": (2,), "by_resnet": True, "scale_shift": False},
        {"num_heads": 1},
    ),
    ({"channels": (3, 6), "classes": 5, "attends": (0,), "mult": (1, 1)}, {**FOUR, **OLD}),
    ({"channels": (1, 2), "scale_shift": False, "mult": (1,), "attends": ()}, {**FOUR, **NEW}),
]


@pytest.mark.parametrize(("shape", "heads"), OPENAI)
def test_guided(tmp_path: Path, shape: dict[str, Any], heads: dict[str, Any]):
    state = foreign.random_state(foreign.openai_shapes(**shape))
    path = foreign.save(tmp_path / "model.pt", state)
    learned = "channels" in shape and shape["channels"][1] == 2 * shape["channels"][0]
    variance = {} if learned else {"variance_type": "fixed_small"}
    settings = Settings(
        sample_size=16, beta_schedule="linear", num_train_timesteps=1000, **heads, **variance
    )
    single = SingleOptions(layout="guided", settings=settings)
    convert(path, tmp_path / "out", single=single)
    labels = torch.tensor([4, 0]) if "classes" in shape else None
    x = X[:, : shape.get("channels", (3,))[0]]
    wanted = torch_foreign.openai(
        tensors(state),
        torch.from_numpy(x),
        torch.from_numpy(TIMES),
        labels,
        order=heads.get("head_order", "new"),
        heads=heads.get("num_heads"),
        head_channels=heads.get("num_head_channels"),
    )
    compared(tmp_path / "out", wanted, x, TIMES, labels)


def test_timesteps_told_as_parts_of_1000(tmp_path: Path):
    """A training of 4000 steps: the network was told a quarter of each timestep."""
    state = foreign.random_state(foreign.openai_shapes())
    settings = Settings(
        sample_size=16,
        num_heads=1,
        beta_schedule="squaredcos_cap_v2",
        num_train_timesteps=4000,
        rescale_timesteps=True,
        variance_type="fixed_small",
    )
    single = SingleOptions(layout="guided", settings=settings)
    convert(foreign.save(tmp_path / "a.pt", state), tmp_path / "out", single=single)
    times = np.array([1, 3999])
    wanted = torch_foreign.openai(
        tensors(state), torch.from_numpy(X), torch.from_numpy(times) / 4, order="new", heads=1
    )
    compared(tmp_path / "out", wanted, X, times)
    scheduler = diffusers.DDPMScheduler.from_pretrained(tmp_path / "out", subfolder="scheduler")
    alpha_bar = np.cos((np.arange(4001) / 4000 + 0.008) / 1.008 * np.pi / 2) ** 2
    betas = np.minimum(1 - alpha_bar[1:] / alpha_bar[:-1], 0.999)
    np.testing.assert_allclose(scheduler.betas.numpy(), betas, rtol=1e-4)


def test_consistency(tmp_path: Path):
    """The network is told 250 log sigma, a fraction."""
    shape: dict[str, Any] = {"by_resnet": True, "attends": (0, 1), "classes": 7}
    state = foreign.random_state(foreign.openai_shapes(**shape))
    settings = Settings(sample_size=16, num_head_channels=16, num_train_timesteps=40)
    single = SingleOptions(layout="consistency", settings=settings)
    convert(foreign.save(tmp_path / "cd.pt", state), tmp_path / "out", single=single)
    told = (250 * np.log(np.array([80.0, 0.5]))).astype(np.float32)
    labels = torch.tensor([6, 2])
    wanted = torch_foreign.openai(
        tensors(state),
        torch.from_numpy(X),
        torch.from_numpy(told),
        labels,
        order="new",
        head_channels=16,
    )
    compared(tmp_path / "out", wanted, X, told, labels)
    pipe = diffusers.DiffusionPipeline.from_pretrained(tmp_path / "out")
    assert type(pipe).__name__ == "ConsistencyModelPipeline"
