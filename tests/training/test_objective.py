"""The loss: what is drawn, what the network is shown, what its answer costs, what is refused."""

from typing import Any, get_args

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

import ddpm_jax as dj
from ddpm_jax._typing import PredictionType
from ddpm_jax.training import Drawn, Loss, Objective, make_loss

SHAPE = (6, 4, 4, 2)
T = np.array([0, 1, 7, 500, 998, 999], np.int32)

# float32 means of 32 squares.
ROUNDING = 1e-5

ALPHA_BAR = np.cumprod(1 - np.linspace(1e-4, 0.02, 1000))
ALPHA, SIGMA = (np.sqrt(a)[T][:, None, None, None] for a in (ALPHA_BAR, 1 - ALPHA_BAR))


def arrays(*seeds: int) -> list[np.ndarray]:
    """Unit normal, in float32."""
    return [np.random.default_rng(s).standard_normal(SHAPE).astype(np.float32) for s in seeds]


BLOCKS: dict[str, Any] = {
    "block_out_channels": (8,),
    "down_block_types": ("DownBlock2D",),
    "up_block_types": ("UpBlock2D",),
    "norm_num_groups": 4,
}
"""What makes a UNet's config valid; none of these blocks is ever built."""


class Given(dj.UNet2DModel):
    """output + gain x + slope timestep [+ label], the first three out of the params.

    So a gradient with respect to `output` is the loss's own; while training, noise is added.
    """

    @nn.compact
    def __call__(
        self, x: Any, timestep: Any, class_labels: Any = None, train: bool = False
    ) -> jax.Array:
        params = self.variables["params"]
        added = params.get("slope", 0.0) * timestep
        if class_labels is not None:
            added = added + class_labels
        output = jnp.asarray(params["output"]) + added[:, None, None, None]
        if "gain" in params:
            output = output + params["gain"] * x
        if train:
            output = output + jax.random.normal(self.make_rng("dropout"), output.shape)
        return output


def loss_of(objective: Objective | None = None, classes: int | None = None, **fields: Any) -> Loss:
    """Of a network that answers what its params say."""
    scheduler = dj.DDPMScheduler(**fields)
    channels = 4 if "learned" in scheduler.variance_type else 2
    model = Given(in_channels=2, out_channels=channels, num_class_embeds=classes, **BLOCKS)
    return make_loss(model, scheduler, objective)


def drawn_of(noise: np.ndarray, label: Any = None) -> Drawn:
    return Drawn(T, noise, label, jax.random.key(0))


def terms(loss: Loss, params: Any, x0: Any, noise: np.ndarray, label: Any = None) -> dict[str, Any]:
    """Of each image, without dropout."""
    return loss.per_image(params, {"image": x0}, drawn_of(noise, label), train=False)


# What an answer costs.


@pytest.mark.parametrize("prediction_type", get_args(PredictionType))
def test_simple(prediction_type: str) -> None:
    """The network is shown alpha x0 + sigma eps and t; its answer is measured per pixel."""
    x0, noise, answer = arrays(0, 1, 2)
    params = {"output": answer, "gain": 0.5, "slope": 1e-3}
    loss = loss_of(prediction_type=prediction_type)
    found = terms(loss, params, x0, noise)
    x = ALPHA * x0 + SIGMA * noise
    target = {"epsilon": noise, "sample": x0, "v_prediction": ALPHA * noise - SIGMA * x0}
    output = answer + 0.5 * x + 1e-3 * T[:, None, None, None]
    expected = ((output - target[prediction_type]) ** 2).mean((1, 2, 3))
    assert set(found) == {"loss"}
    np.testing.assert_allclose(found["loss"], expected, rtol=ROUNDING)


def test_means_and_names() -> None:
    batch = {"image": arrays(0)[0], "index": np.arange(6)}  # what else is there is not read
    params, key = {"output": np.concatenate(arrays(2, 3), axis=-1)}, jax.random.key(1)
    for kind, names in (("hybrid", {"loss", "simple", "vlb"}), ("vlb", {"loss", "vlb"})):
        loss = loss_of(Objective(loss=kind), variance_type="learned_range")
        value, metrics = loss(params, batch, key)
        found = loss.per_image(params, batch, loss.draw(batch, key))
        assert set(metrics) == names
        assert float(value) == float(metrics["loss"])
        for name in names:
            assert float(metrics[name]) == pytest.approx(float(np.mean(found[name])), rel=ROUNDING)


def test_hybrid_adds_a_thousandth_of_the_bound() -> None:
    """Nichol and Dhariwal 2021, section 3.1: the bound's part is that of loss "vlb"."""
    x0, noise = arrays(0, 1)
    params = {"output": np.concatenate(arrays(2, 3), axis=-1)}
    hybrid, alone = (
        terms(loss_of(objective, variance_type="learned_range"), params, x0, noise)
        for objective in (Objective(loss="hybrid", vlb_weight=0.02), Objective(loss="vlb"))
    )
    simple = ((params["output"][..., :2] - noise) ** 2).mean((1, 2, 3))
    np.testing.assert_allclose(hybrid["simple"], simple, rtol=ROUNDING)
    np.testing.assert_array_equal(hybrid["vlb"], alone["vlb"])
    np.testing.assert_allclose(hybrid["loss"], simple + 0.02 * alone["vlb"], rtol=ROUNDING)
    assert Objective().vlb_weight == 1e-3


@pytest.mark.parametrize("variance_type", ["learned", "learned_range"])
def test_each_term_of_hybrid_trains_its_half(variance_type: str) -> None:
    """The mean half gets the gradient of the simple term alone, the other that of the bound."""
    x0, noise = arrays(0, 1)
    output = jnp.asarray(np.concatenate(arrays(2, 3), axis=-1))

    def gradient(kind: Any, term: str) -> np.ndarray:
        loss = loss_of(Objective(loss=kind, vlb_weight=0.5), variance_type=variance_type)

        def total(output: jax.Array) -> jax.Array:
            return terms(loss, {"output": output}, x0, noise)[term].sum()

        return np.asarray(jax.grad(total)(output))

    hybrid, simple = gradient("hybrid", "loss"), gradient("hybrid", "simple")
    bound = gradient("vlb", "vlb")
    assert np.all(bound != 0)  # else there would be nothing to leave out
    np.testing.assert_array_equal(hybrid[..., :2], simple[..., :2])
    np.testing.assert_array_equal(simple[..., 2:], 0)
    np.testing.assert_allclose(hybrid[..., 2:], 0.5 * bound[..., 2:], rtol=ROUNDING)


@pytest.mark.parametrize(
    ("variance_type", "prediction_type"),
    [
        ("fixed_small", "epsilon"),
        ("fixed_large_log", "sample"),
        ("learned", "v_prediction"),
        ("learned_range", "epsilon"),
    ],
)
def test_gradients_are_finite_at_the_extremes(variance_type: str, prediction_type: str) -> None:
    """Saturated images, answers off by up to 1e4, at the first and the last timesteps."""
    kind = "hybrid" if "learned" in variance_type else "vlb"
    loss = loss_of(
        Objective(loss=kind), variance_type=variance_type, prediction_type=prediction_type
    )
    x0 = np.sign(arrays(0)[0])
    noise = arrays(1)[0]
    values = np.linspace(-20, 20, x0.size, dtype=np.float32).reshape(x0.shape)

    @jax.jit
    def gradient(answer: jax.Array) -> Any:
        output = jnp.concatenate([answer, values], -1) if "learned" in variance_type else answer

        def total(output: jax.Array) -> jax.Array:
            return terms(loss, {"output": output}, x0, noise)["loss"].sum()

        return jax.value_and_grad(total)(output)

    for scale in (0.0, 1.0, 1e2, 1e4):
        for sign in (x0, -x0):
            value, slope = gradient(jnp.asarray(scale * sign))
            assert np.isfinite(value)
            assert np.all(np.isfinite(slope))


# What is drawn.


def test_draws_are_uniform_timesteps_and_unit_noise() -> None:
    loss = loss_of()
    drawn = loss.draw({"image": np.zeros((20_000, 1, 1, 2), np.float32)}, jax.random.key(5))
    t, noise = np.asarray(drawn.timestep), np.asarray(drawn.noise)
    counts = np.bincount(t, minlength=1000)
    assert len(counts) == 1000
    # 20 a timestep: chi^2 of 999 degrees of freedom, mean 999 and standard deviation 45.
    assert abs(((counts - 20) ** 2 / 20).sum() - 999) < 5 * 45
    assert abs(noise.mean()) < 5 / 200
    assert abs(noise.std() - 1) < 5 / 283
    assert abs(np.corrcoef(t, noise[:, 0, 0, 0])[0, 1]) < 5 / 141
    assert drawn.label is None


def test_the_key_decides_and_nothing_else() -> None:
    loss, batch = loss_of(), {"image": arrays(0)[0]}
    first, again, other = (loss.draw(batch, jax.random.key(k)) for k in (1, 1, 2))
    assert np.array_equal(first.timestep, again.timestep)
    assert np.array_equal(first.noise, again.noise)
    assert not np.array_equal(first.timestep, other.timestep)
    assert not np.any(np.asarray(first.noise) == np.asarray(other.noise))
    assert (
        jax.random.key_data(first.dropout).tolist() != jax.random.key_data(other.dropout).tolist()
    )


def test_label_dropout() -> None:
    loss = loss_of(Objective(label_dropout=0.2), classes=4)
    label = np.random.default_rng(0).integers(0, 3, 20_000)
    batch = {"image": np.zeros((20_000, 1, 1, 2), np.float32), "label": label}
    found = np.asarray(loss.draw(batch, jax.random.key(0)).label)
    dropped = found != label
    assert np.all(found[dropped] == 3)  # the last row of the table
    assert abs(dropped.mean() - 0.2) < 5 * (0.2 * 0.8 / 20_000) ** 0.5
    for k in range(3):  # whatever the class
        share = dropped[label == k].mean()
        assert abs(share - 0.2) < 5 * (0.2 * 0.8 / (label == k).sum()) ** 0.5


def test_the_network_gets_the_labels() -> None:
    x0, noise = arrays(0, 1)
    label = np.array([0, 2, 1, 2, 0, 1])
    drawn = loss_of(classes=3).draw({"image": x0, "label": label}, jax.random.key(0))
    assert np.array_equal(drawn.label, label)  # none is dropped unasked
    found = terms(loss_of(classes=3), {"output": noise}, x0, noise, label)
    np.testing.assert_allclose(found["loss"], label**2, rtol=ROUNDING, atol=1e-9)


def test_the_network_trains_with_a_key_or_not_at_all() -> None:
    """While training, the network under test adds unit noise from the key that it is handed."""
    x0, noise = arrays(0, 1)
    loss, params = loss_of(), {"output": noise}

    def value(key: int, **train: bool) -> np.ndarray:
        drawn = drawn_of(noise)._replace(dropout=jax.random.key(key))
        return np.asarray(loss.per_image(params, {"image": x0}, drawn, **train)["loss"])

    np.testing.assert_allclose(value(0, train=False), 0, atol=1e-12)
    assert np.all(value(0) > 0.1)
    assert np.array_equal(value(0), value(0))
    assert not np.any(value(0) == value(1))


# Which schedulers.


@pytest.mark.parametrize("other", [dj.DDIMScheduler, dj.PNDMScheduler, dj.EulerDiscreteScheduler])
def test_any_scheduler_stands_for_its_forward_process(other: Any) -> None:
    fields = {"beta_schedule": "scaled_linear", "prediction_type": "v_prediction"}
    model = Given(in_channels=2, out_channels=2, **BLOCKS)
    x0, noise, answer = arrays(0, 1, 2)
    found, expected = (
        terms(make_loss(model, scheduler), {"output": answer}, x0, noise)["loss"]
        for scheduler in (other(**fields), dj.DDPMScheduler(**fields))
    )
    assert np.array_equal(found, expected)


# What is refused.

IMAGE = np.zeros(SHAPE, np.float32)
LABEL = np.zeros(6, np.int32)


@pytest.mark.usefixtures("as_users_run")
@pytest.mark.parametrize(
    ("classes", "batch", "message"),
    [
        (3, {"image": IMAGE}, 'the model has 3 classes, and the batch has no "label"'),
        (None, {"image": IMAGE, "label": LABEL}, 'no classes, and the batch has "label"'),
        (3, {"image": IMAGE, "label": LABEL[:5]}, r'"label" must be \(6,\), got \(5,\)'),
        (None, {"image": IMAGE[..., :1]}, r'"image" must be \(B, H, W, 2\), got \(6, 4, 4, 1\)'),
        (None, {"image": IMAGE[0]}, r'"image" must be \(B, H, W, C\), got \(4, 4, 2\)'),
        (None, {"image": IMAGE.astype(np.uint8)}, "images must be arrays of floats.*uint8"),
    ],
)
def test_batches_that_do_not_fit(classes: Any, batch: Any, message: str) -> None:
    loss = loss_of(classes=classes)
    for call in (loss, jax.jit(loss)):
        with pytest.raises(ValueError, match=message):
            call({"output": IMAGE}, batch, jax.random.key(0))


@pytest.mark.parametrize(
    ("model", "scheduler", "objective", "message"),
    [
        ({"out_channels": 4}, {}, {}, "fixed_small.*needs out_channels = 2 for 2 in_ch.*got 4"),
        ({}, {"variance_type": "learned"}, {}, "learned.*needs out_channels = 4 .* got 2"),
        ({"out_channels": 4}, {"variance_type": "learned_range"}, {}, "not trained by loss"),
        ({}, {}, {"loss": "hybrid"}, 'trains a learned variance, variance_type is "fixed_small"'),
        ({}, {}, {"label_dropout": 0.1}, "label_dropout needs .* num_class_embeds is None"),
        ({"num_class_embeds": 1}, {}, {"label_dropout": 0.1}, "at least two rows"),
        ({"class_embed_type": "timestep"}, {}, {}, '"timestep" cannot be trained on labels'),
        ({"time_embedding_type": "fourier"}, {}, {}, "fourier.*logarithm of the timestep"),
        ({"time_embedding_type": "learned", "num_train_timesteps": 500}, {}, {}, "is 500, the s"),
        ({"dtype": jnp.float16}, {}, {}, "float16 loses small gradients"),
        ({"out_channels": 4}, {}, {"loss": "hybrid"}, "out_channels.*; .*learned variance"),
    ],
)
def test_models_that_do_not_fit(model: Any, scheduler: Any, objective: Any, message: str) -> None:
    fields = {"in_channels": 2, "out_channels": 2, **BLOCKS, **model}
    with pytest.raises(ValueError, match=message):
        make_loss(dj.UNet2DModel(**fields), dj.DDPMScheduler(**scheduler), Objective(**objective))


# Another network.


def test_another_network_trains_by_another_predict() -> None:
    """A conditional model reads its context from the batch, and gets the labels after dropout."""
    x0, noise, context = arrays(0, 1, 2)
    seen: list[Any] = []

    def predict(params: Any, x: Any, timestep: Any, batch: Any, rngs: Any, train: bool) -> Any:
        seen.append((batch["label"], rngs, train))
        return params["scale"] * jnp.asarray(batch["context"])

    loss = Loss(predict, dj.DDPMScheduler(), Objective(label_dropout=0.5), no_class=7)
    batch = {"image": x0, "context": context, "label": LABEL}
    found = loss.per_image({"scale": 2.0}, batch, drawn_of(noise, LABEL + 7), train=False)
    expected = ((2 * context - noise) ** 2).mean((1, 2, 3))
    np.testing.assert_allclose(found["loss"], expected, rtol=ROUNDING)
    ((label, rngs, train),) = seen
    assert label.tolist() == [7] * 6
    assert (rngs, train) == (None, False)
    loss({"scale": 2.0}, batch, jax.random.key(3))
    label, rngs, train = seen[1]
    assert set(np.asarray(label).tolist()) == {0, 7}
    assert (set(rngs), train) == ({"dropout"}, True)


@pytest.mark.parametrize(
    ("objective", "message"),
    [({"loss": "hybrid"}, "learned variance"), ({"label_dropout": 0.1}, "needs no_class")],
)
def test_a_loss_of_another_network_checks_its_objective(objective: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Loss(lambda *_: jnp.zeros(SHAPE), dj.DDPMScheduler(), Objective(**objective))
