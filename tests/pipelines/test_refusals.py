"""The pipelines: arguments that are refused, and construction."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from pipelines.models import pipeline, tiny

import ddpm_jax as dj

QUIET = {"progress": False, "output_type": "np"}
KEY = jax.random.key(7)


@pytest.fixture(scope="module")
def ddim() -> dj.DDIMPipeline:
    return pipeline(dj.DDIMPipeline)


# Arguments.


def test_a_run_that_begins_at_timestep_0_warns(ddim: dj.DDIMPipeline):
    with pytest.warns(UserWarning, match="begins at timestep 0"):
        ddim(KEY, num_inference_steps=1, **QUIET)


@pytest.mark.parametrize("key", [0, None, 1.5, np.zeros(2, np.int32)])
@pytest.mark.usefixtures("as_users_run")
def test_wrong_keys(ddim: dj.DDIMPipeline, key: Any):
    with pytest.raises(TypeError, match=r"a key is jax.random.key\(seed\)"):
        ddim(key)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"output_type": "latent"}, 'must be "pil", "np" or "jax", got \'latent\''),
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
        ({"num_inference_steps": 0}, "0"),
        ({"num_inference_steps": 1001}, "1001"),
        ({"eta": -0.1}, "eta"),
        ({"callback_every": 0}, "callback_every must be at least 1"),
        ({"batch_size": 2.5}, "batch_size must be a whole number, got 2.5"),
        ({"batch_size": True}, "batch_size must be a whole number, got True"),
        ({"guide": "pigdm"}, "guide must be what pigdm, .* gives, got str"),
        ({"table": [999, 500]}, r"table must be a ddpm_jax.Table, got list"),
        ({"sharding": "batch"}, "sharding must be a NamedSharding .*; got 'batch'"),
        ({"x_T": np.zeros((2, 8, 8, 3))}, r"x_T must be \(B, H, W, 1\), got shape \(2, 8, 8, 3\)"),
        ({"x_T": np.zeros((8, 8, 1))}, r"got shape \(8, 8, 1\)"),
        (
            {"x_T": np.zeros((2, 8, 8, 1)), "batch_size": 3},
            "x_T has 2 images, but the batch size is 3",
        ),
    ],
)
@pytest.mark.usefixtures("as_users_run")
def test_wrong_arguments(ddim: dj.DDIMPipeline, options: dict[str, Any], words: str):
    with pytest.raises(ValueError, match=words):
        ddim(KEY, progress=False, **options)


def test_arguments_that_only_diffusers_has_are_type_errors(ddim: dj.DDIMPipeline):
    with pytest.raises(TypeError, match="unexpected keyword argument 'generator'"):
        ddim(KEY, generator=None)  # pyright: ignore[reportCallIssue]
    with pytest.raises(TypeError, match="unknown options torch_dtype; accepted: revision"):
        dj.DDIMPipeline.from_pretrained("digits", torch_dtype=None)  # pyright: ignore[reportCallIssue]


@pytest.mark.usefixtures("as_users_run")
def test_counts_may_be_numpy_integers(ddim: dj.DDIMPipeline):
    seen: list[int] = []
    images = ddim(
        KEY,
        batch_size=np.int64(2),  # pyright: ignore
        num_inference_steps=np.int32(3),  # pyright: ignore
        callback=lambda done, _: seen.append(done),
        callback_every=np.int64(2),  # pyright: ignore
        **QUIET,
    ).images
    assert (len(images), seen) == (2, [2, 3])


def test_pil_for_other_channels_is_refused_before_sampling(monkeypatch: pytest.MonkeyPatch):
    model = tiny()[0].clone(in_channels=2, out_channels=2)
    pipe = dj.DDIMPipeline(unet=model, params={}, scheduler=dj.DDIMScheduler())
    monkeypatch.setattr(
        "ddpm_jax.sampling.segments.run", lambda *_, **__: pytest.fail("it sampled")
    )
    with pytest.raises(ValueError, match='this model\'s have 2: pass output_type="np"'):
        pipe(KEY, num_inference_steps=2)


def test_keys_and_batch_size_must_agree(ddim: dj.DDIMPipeline):
    keys = dj.sample_keys(KEY, 3)
    with pytest.raises(ValueError, match="got 3 keys for a batch of 2"):
        ddim(keys, batch_size=2)
    with pytest.raises(ValueError, match=r"one key or \(B,\) keys"):
        ddim(keys.reshape(3, 1))


@pytest.mark.parametrize("options", [{"eta": 0.5}, {"use_clipped_model_output": True}])
def test_option_that_the_scheduler_lacks(options: dict[str, Any]):
    pipe = pipeline(dj.DDIMPipeline)
    pipe.scheduler = dj.EulerDiscreteScheduler()
    (name,) = options
    with pytest.raises(ValueError, match=f"EulerDiscreteScheduler has no option {name}"):
        pipe(KEY, **options)


def test_model_without_a_size_needs_x_T():
    pipe = pipeline(dj.DDIMPipeline, sample_size=None)
    with pytest.raises(ValueError, match="no sample_size: give x_T"):
        pipe(KEY)
    images = pipe(KEY, x_T=jnp.ones((1, 4, 12, 1)), num_inference_steps=2, **QUIET).images
    assert images.shape == (1, 4, 12, 1)


# Construction.


def test_components_and_conversion():
    model, params = tiny()
    given = dj.EulerDiscreteScheduler(beta_end=0.01)
    pipe = dj.DDPMPipeline(unet=model, params=params, scheduler=given)
    assert pipe.components == {"unet": model, "params": params, "scheduler": given}
    assert (pipe.unet, pipe.params, pipe.scheduler) == (model, params, given)
    ddim = dj.DDIMPipeline.from_pipe(pipe)
    assert ddim.scheduler == dj.DDIMScheduler(beta_end=0.01)
    assert ddim.params is params
    assert isinstance(dj.PNDMPipeline.from_pipe(ddim).scheduler, dj.PNDMScheduler)
    other = dj.PNDMScheduler(beta_start=0.001)
    assert dj.PNDMPipeline.from_pipe(ddim, scheduler=other).scheduler is other
    assert dj.DDPMPipeline.from_pipe(ddim, params={}).params == {}


@pytest.mark.usefixtures("as_users_run")
@pytest.mark.parametrize(
    ("scheduler", "words"),
    [
        ("ddim", "got str$"),
        (dj.DDIMScheduler, "got the class DDIMScheduler$"),
        (None, "got NoneType"),
    ],
)
def test_only_a_scheduler_may_be_assigned(scheduler: Any, words: str):
    pipe = pipeline(dj.DDPMPipeline)
    before = pipe.scheduler
    with pytest.raises(ValueError, match=f"scheduler must be a ddpm_jax scheduler, {words}"):
        pipe.scheduler = scheduler
    assert pipe.scheduler is before


@pytest.mark.usefixtures("as_users_run")
@pytest.mark.parametrize(
    ("replaced", "words"),
    [
        ({"unet": "digits"}, "unet must be a UNet2DModel, got str"),
        ({"unet": dj.UNet2DModel}, "unet must be a UNet2DModel, got the class UNet2DModel"),
        ({"scheduler": {}}, "scheduler must be a ddpm_jax scheduler, got dict"),
        ({"params": None}, "params must be a nested dict of arrays, got NoneType"),
    ],
)
def test_other_components_are_refused(replaced: dict[str, Any], words: str):
    parts = pipeline(dj.DDPMPipeline).components
    with pytest.raises(ValueError, match=words):
        dj.DDPMPipeline(**(parts | replaced))


def test_repr_is_short():
    pipe = pipeline(dj.DDIMPipeline)
    count = sum(leaf.size for leaf in jax.tree.leaves(pipe.params))
    assert repr(pipe) == (
        f"DDIMPipeline(unet=<UNet2DModel, sample_size=8, in_channels=1, {count:,} params>, "
        "scheduler=<DDIMScheduler>)"
    )
