"""The pictures of guides in docs/research.md: `python -m examples.research.guides`.

Restored digits, and digits of each class under a classifier that it trains. Takes about two minutes
on two CPU cores. Needs scikit-learn for real digits: `-e '.[evaluation]'`.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import ddpm_jax as dj
from ddpm_jax.evaluation.digits import real_digits
from examples.research.pictures import KEY, QUIET, real, save

NOISE = 0.05
"""Standard deviation of the measurements' noise, for pixels in [-1, 1]."""
BLUR = np.outer([1, 2, 1], [1, 2, 1]) / 16
STEPS = 100


def measurements() -> dict[str, Any]:
    """Half of the pixels at random, blocks of 2 x 2, and a blur."""
    mask = np.random.default_rng(0).random((8, 8, 1)) < 0.5
    return {
        "masked": dj.Masked(mask.astype(np.float32)),
        "downsampled": dj.Downsampled(2),
        "blurred": dj.Blurred(BLUR.astype(np.float32)),
    }


def restored(pipe: Any) -> None:
    """For each measurement: what is seen, and what PiGDM, DiffPIR and DPS make of it."""
    images = real(10)
    rows, random = [images], np.random.default_rng(1)
    unclipped = dj.DDIMScheduler.from_config(
        pipe.scheduler.config, clip_sample=False, timestep_spacing="trailing"
    )
    for measure in measurements().values():
        y = np.asarray(measure(jnp.asarray(2 * images - 1)))
        y = (y + NOISE * random.normal(size=y.shape)).astype(np.float32)
        shown = np.repeat(np.repeat(y, 8 // y.shape[1], axis=1), 8 // y.shape[2], axis=2)
        if isinstance(measure, dj.Masked):
            shown = shown * measure.mask
        rows.append(np.clip(shown / 2 + 0.5, 0, 1))
        for guide, eta in (
            (dj.pigdm(measure, y, NOISE, data_std=0.5), 0.0),
            (dj.diffpir(measure, y, NOISE), 1.0),
            (dj.dps(measure, y, scale=1.0), 1.0),
        ):
            table = unclipped.table(STEPS, eta=eta)
            rows.append(pipe(KEY, batch_size=10, table=table, guide=guide, **QUIET).images)
    save("restored", rows)


def classifier(params: Any, x: Any, timestep: Any) -> Any:
    """Two layers on pixels and the noise level; what classifier guidance asks."""
    level = jnp.broadcast_to(timestep / 1000, (len(x), 1))
    told = jnp.concatenate([x.reshape(len(x), -1), level, jnp.cos(3 * level)], axis=1)
    hidden = jax.nn.silu(told @ params["first"] + params["bias"])
    hidden = jax.nn.silu(hidden @ params["second"])
    return hidden @ params["third"]


def trained(scheduler: Any, updates: int = 2000, width: int = 256) -> Any:
    """Trains the classifier on noised digits of all levels."""
    digits, random = real_digits(), np.random.default_rng(0)
    images = jnp.asarray(2 * digits.images.reshape(-1, 8, 8, 1) - 1, jnp.float32)
    labels = jnp.asarray(digits.labels)
    sizes = {"first": (66, width), "second": (width, width), "third": (width, 10)}
    params = {
        name: jnp.asarray(random.normal(size=size) / np.sqrt(size[0]), jnp.float32)
        for name, size in sizes.items()
    } | {"bias": jnp.zeros(width)}
    optimizer = optax.adam(optax.cosine_decay_schedule(2e-3, updates))

    def loss(params: Any, x: Any, timesteps: Any, labels: Any) -> Any:
        logits = jax.vmap(lambda one, t: classifier(params, one[None], t)[0])(x, timesteps)
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

    @jax.jit
    def update(params: Any, state: Any, key: Any) -> Any:
        picks, times, noises = jax.random.split(key, 3)
        rows = jax.random.randint(picks, (128,), 0, len(images))
        timesteps = jax.random.randint(times, (128,), 0, 1000)
        noise = jax.random.normal(noises, (128, 8, 8, 1))
        x = scheduler.add_noise(images[rows], noise, timesteps)
        told = timesteps.astype(jnp.float32)
        change, state = optimizer.update(jax.grad(loss)(params, x, told, labels[rows]), state)
        return optax.apply_updates(params, change), state

    state = optimizer.init(params)
    for key in jax.random.split(jax.random.key(0), updates):
        params, state = update(params, state, key)
    return params


def classified(pipe: Any) -> None:
    """Ten classes, one a column: four digits of each."""
    params = trained(pipe.scheduler)
    labels = np.tile(np.arange(10), 4)
    guide = dj.classifier_guide(classifier, params, labels, scale=3.0)
    table = dj.DDIMScheduler.from_config(
        pipe.scheduler.config, clip_sample=False, timestep_spacing="trailing"
    ).table(STEPS, eta=1.0)
    images = pipe(KEY, batch_size=40, table=table, guide=guide, **QUIET).images
    save("classified", list(images.reshape(4, 10, 8, 8, 1)))


def main() -> None:
    """Draws both."""
    pipe: Any = dj.DDIMPipeline.from_pretrained("digits")
    restored(pipe)
    classified(pipe)


if __name__ == "__main__":
    main()
