"""NCSN++ against diffusers: outputs, gradients, files and samples, on random weights."""

import sys
from pathlib import Path
from typing import Any

import diffusers
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from diffusers.pipelines.deprecated import ScoreSdeVePipeline

import ddpm_jax as dj
from tests.parity import peers, torch_unet
from tests.parity.ncsnpp_cases import FACTORS, NCSNPP, config_of
from tests.parity.pairs import Case, cases
from tests.parity.torch_unet import difference, pair, relative
from tests.parity.unet_cases import inputs_of
from weights_convert import convert, to_flax

# Largest difference over largest output, both float32. Measured at most 2e-6 over all cases here.
PARITY = 1e-5
# Of a leaf's gradient: |ours - theirs| / |theirs|.
GRADIENT = 1e-4
INERT = "['to_k']['bias']"
"""Its gradient is rounding: softmax takes away again what it adds to the scores."""

CASES = cases(FACTORS)
SMALL = NCSNPP | {
    "sample_size": 8,
    "block_out_channels": (32, 32),
    "layers_per_block": 1,
    "down_block_types": ("SkipDownBlock2D", "AttnSkipDownBlock2D"),
    "up_block_types": ("AttnSkipUpBlock2D", "SkipUpBlock2D"),
}
SIGMAS = np.array([0.3, 20.0], np.float32)


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("case", CASES, ids=range(len(CASES)))
def test_every_pair_of_options(case: Case):
    x, timestep, labels = inputs_of(case | {"in_channels": 3}, seed=1)
    assert difference(config_of(case), x, timestep, labels) <= PARITY


def test_the_presumed_public_network():
    assert difference(NCSNPP, noise(2, 32, 32, 3), SIGMAS) <= PARITY


@pytest.mark.parametrize(
    "change",
    [
        {"out_channels": 6, "up_block_types": ("UpBlock2D", "SkipUpBlock2D")},
        {"in_channels": 2, "down_block_types": ("DownBlock2D", "AttnSkipDownBlock2D")},
    ],
    ids=str,
)
def test_other_channels_where_no_pyramid_has_an_image(change: dict[str, Any]):
    config = SMALL | {"norm_num_groups": 8} | change
    assert difference(config, noise(2, 8, 8, config.get("in_channels", 3)), SIGMAS) <= PARITY


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_in_half_precision(dtype: torch.dtype):
    """Not farther from diffusers in float32 than twice as far as diffusers itself is."""
    peer, _, params = pair(SMALL)
    x = noise(2, 8, 8, 3)
    exact = torch_unet.call(peer, x, SIGMAS)
    model = dj.UNet2DModel(**SMALL, dtype=str(dtype).removeprefix("torch."))
    ours = np.asarray(jax.jit(model.apply)({"params": params}, x, SIGMAS))
    assert ours.dtype == np.float32
    images = torch.from_numpy(np.moveaxis(x, -1, 1).copy()).to(dtype)
    with torch.no_grad():
        half = peer.to(dtype)(images, torch.from_numpy(SIGMAS)).sample
    theirs = np.moveaxis(half.float().numpy(), 1, -1)
    assert 0 < relative(ours, exact) <= 2 * relative(theirs, exact)


def test_gradients():
    peer, model, params = pair(SMALL)
    x, weight = noise(2, 8, 8, 3), noise(2, 8, 8, 3, seed=1)

    def loss(params: Any, x: Any) -> Any:
        return jnp.sum(model.apply({"params": params}, x, SIGMAS) * weight)

    ours, of_x = jax.jit(jax.grad(loss, (0, 1)))(params, x)
    peer.requires_grad_(True)
    peer.time_proj.requires_grad_(False)
    images = torch.from_numpy(np.moveaxis(x, -1, 1).copy()).requires_grad_(True)
    output = peer(images, torch.from_numpy(SIGMAS)).sample
    (output * torch.from_numpy(np.moveaxis(weight, -1, 1).copy())).sum().backward()
    assert relative(np.asarray(of_x), np.moveaxis(images.grad.numpy(), 1, -1)) <= PARITY

    assert not np.any(ours.pop("time_proj")["weight"])
    grads = {name: one.grad.numpy() for name, one in peer.named_parameters() if one.requires_grad}
    theirs = to_flax(grads)
    assert jax.tree.structure(ours) == jax.tree.structure(theirs)
    for path, leaf in jax.tree_util.tree_leaves_with_path(theirs):
        name = jax.tree_util.keystr(path)
        mine = ours
        for key in path:
            mine = mine[key.key]
        norm = np.linalg.norm(leaf)
        assert name.endswith(INERT) or np.linalg.norm(mine - leaf) <= GRADIENT * norm, name


# Files.


def saved(folder: Path, safe: bool = True, **scheduler: Any) -> Any:
    """diffusers' pipeline, which it has saved."""
    peer = torch_unet.make(SMALL)
    options = {"num_train_timesteps": 2000, "sigma_max": 50.0, **scheduler}
    pipe = ScoreSdeVePipeline(unet=peer, scheduler=diffusers.ScoreSdeVeScheduler(**options))
    pipe.save_pretrained(folder, safe_serialization=safe)
    return pipe


def flatten(folder: Path) -> None:
    """As google/ncsnpp-* has it: all files in one folder."""
    for path in [*(folder / "unet").iterdir(), *(folder / "scheduler").iterdir()]:
        path.rename(folder / path.name)
    (folder / "unet").rmdir()
    (folder / "scheduler").rmdir()


def equal_state(found: Any, wanted: Any) -> None:
    found, wanted = found.state_dict(), wanted.state_dict()
    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)


@pytest.mark.parametrize("safe", [True, False], ids=["safetensors", "bin"])
@pytest.mark.parametrize("flat", [False, True], ids=["folders", "flat"])
def test_files_there_and_back(tmp_path: Path, safe: bool, flat: bool):
    given = saved(tmp_path / "given", safe)
    if flat:
        flatten(tmp_path / "given")
    pipe: Any = dj.DiffusionPipeline.from_pretrained(tmp_path / "given")
    assert type(pipe) is dj.ScoreSdeVePipeline
    assert type(pipe.scheduler) is dj.ScoreSdeVeScheduler
    pipe.save_pretrained(tmp_path / "ours")
    convert(tmp_path / "given", tmp_path / "flax", to="flax")
    convert(tmp_path / "flax", tmp_path / "back", to="diffusers")
    for name in ("ours", "back"):
        again = ScoreSdeVePipeline.from_pretrained(tmp_path / name)
        equal_state(again.unet, given.unet)
        ours, theirs = (
            {key: value for key, value in one.scheduler.config.items() if key[0] != "_"}
            for one in (again, given)
        )
        assert ours == theirs


OLD = {
    "to_q": "query",
    "to_k": "key",
    "to_v": "value",
    "to_out.0": "proj_attn",
    "time_proj.weight": "time_steps.W",
    "mid_block": "mid",
    "down_blocks": "downsample_blocks",
    "up_blocks": "upsample_blocks",
}


def test_names_of_the_first_releases(tmp_path: Path):
    """All old names, and the fourier weight under each of its names."""
    peer = torch_unet.make(SMALL)
    peer.save_config(tmp_path)
    state = {}
    for name, tensor in peer.state_dict().items():
        for new, old in OLD.items():
            name = name.replace(new, old)
        state[name] = tensor
    state["time_proj.W"] = state["time_proj.weight"] = peer.time_proj.weight
    assert len(state) == len(peer.state_dict()) + 2
    torch.save(state, tmp_path / "diffusion_pytorch_model.bin")
    model, params = dj.UNet2DModel.from_pretrained(tmp_path)
    model.save_pretrained(tmp_path / "ours", params)
    equal_state(diffusers.UNet2DModel.from_pretrained(tmp_path / "ours"), peer)


# Samples.

STEPS, COUNT = 6, 2


def drawn(pipe: Any) -> tuple[Any, Any, np.ndarray, list[np.ndarray]]:
    """Keys, the table, and the draws that they stand for: x_T, and one for each row."""
    keys, shape = dj.sample_keys(jax.random.key(1), COUNT), (8, 8, 3)
    table = pipe.scheduler.table(STEPS)
    x_T = np.asarray(dj.prior(table, keys, shape))
    return keys, table, x_T, [np.asarray(dj.noise(keys, i, shape)) for i in range(len(table))]


@pytest.mark.parametrize("correct_steps", [0, 1, 2])
def test_samples_from_the_same_noise(tmp_path: Path, correct_steps: int):
    """diffusers' loop, where norms in the corrector are those that are expected."""
    given = saved(tmp_path, correct_steps=correct_steps, sigma_max=2.0)
    pipe: Any = dj.DiffusionPipeline.from_pretrained(tmp_path)
    keys, table, x_T, draws = drawn(pipe)
    assert len(table) == (1 + correct_steps) * STEPS

    def network(sample: np.ndarray, row: int) -> np.ndarray:
        told = given.scheduler.sigmas[row // (1 + correct_steps)]
        return torch_unet.call(given.unet, sample, told.expand(COUNT))

    called = (given.scheduler, STEPS, network, x_T, draws)
    theirs = peers.follow("ScoreSdeVeScheduler", *called).samples[-1]
    ours = np.asarray(dj.sample(pipe.unet.denoise, pipe.params, table, x_T, keys))
    assert relative(ours, theirs) <= PARITY
    images = pipe(keys, num_inference_steps=STEPS, output_type="np", progress=False).images
    clipped = theirs.clip(0, 1)
    assert np.mean((clipped > 0) & (clipped < 1)) > 0.1  # there is something to compare
    np.testing.assert_allclose(images, clipped, atol=PARITY * np.abs(theirs).max())


def test_the_call_of_their_pipeline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Without corrector steps its own call makes our images, from the same draws."""
    given = saved(tmp_path, correct_steps=0, sigma_max=2.0)
    pipe: Any = dj.DiffusionPipeline.from_pretrained(tmp_path)
    keys, _, x_T, draws = drawn(pipe)
    queue = [np.moveaxis(one, -1, 1).copy() for one in (x_T / 2.0, *draws)]
    for kind in (ScoreSdeVePipeline, diffusers.ScoreSdeVeScheduler):
        monkeypatch.setattr(
            sys.modules[kind.__module__],
            "randn_tensor",
            lambda *_, **__: torch.from_numpy(queue.pop(0)),
        )
    given.set_progress_bar_config(disable=True)
    theirs = given(batch_size=COUNT, num_inference_steps=STEPS, output_type="np").images
    assert not queue
    ours = pipe(keys, num_inference_steps=STEPS, output_type="np", progress=False).images
    np.testing.assert_allclose(ours, theirs, atol=10 * PARITY)
