r"""Learns a table of few evaluations from one of many.

From the same x_T both run to an image. The learner's numbers (`ddpm_jax.learning.space`) move
down the gradient of

    (1)  mean of loss(student's image, teacher's image)

which flows back through the whole scan (`sample` with `remat`). The numbers' average over the last
updates is tried on images that are held out, and the best of all tries is the result. The start is
the first try, so the result is never worse than the start there.
"""

# pyright: reportUnknownMemberType=false
# jax leaves parts of its types open.

import math
import os
import warnings
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from ddpm_jax._typing import AnyArray, is_number, is_whole
from ddpm_jax.hub.files import replacing
from ddpm_jax.hub.npz import read_npz
from ddpm_jax.learning.space import Space, Variables, space_of, table_of
from ddpm_jax.sampling.keys import Keys, prior, typed_keys
from ddpm_jax.sampling.loops import Denoise, sample
from ddpm_jax.tables.table import Table

Loss: TypeAlias = Callable[[Float[Array, "b h w c"], Float[Array, "b h w c"]], Float[Array, "..."]]
"""loss(images, wanted) -> numbers, of which the mean is taken; both (B, H, W, C) samples of the
tables, in [-1, 1] for networks in pixel space."""

HELD_OUT = 8
"""One image in so many is held out."""
TRY_EVERY = 50
"""Updates between two tries on the images that are held out."""
AVERAGE = 0.95
"""Decay of the average of the numbers: over about 20 updates."""


@cache
def adam() -> Any:
    """The optimizer, without a rate; optax is imported where it is needed."""
    import optax

    return optax.chain(optax.clip_by_global_norm(1.0), optax.scale_by_adam(b1=0.9, b2=0.99))


def squared_error(
    images: Float[Array, "b h w c"], wanted: Float[Array, "b h w c"]
) -> Float[Array, "b h w c"]:
    """The default loss."""
    return jnp.square(images - wanted)


def learn_table(
    denoise: Denoise,
    params: Any,
    start: Table,
    teacher: Table,
    keys: Keys,
    shape: tuple[int, int, int],
    steps: int = 2000,
    *,
    conditions: Mapping[str, Any] | None = None,
    loss: Loss = squared_error,
    batch_size: int = 64,
    learning_rate: float = 5e-3,
    state: str | os.PathLike[str] | None = None,
    progress: bool = True,
) -> Table:
    """A table with the rows of `start` whose images are closer to the teacher's.

    Args:
        denoise: as in `ddpm_jax.sample`, differentiable; static, compared by identity.
        params: its first argument; they do not change.
        start: a deterministic table, one row a step: DDIM's, DPM-Solver++'s, UniPC's. The result
            takes as many evaluations.
        teacher: a deterministic table of many evaluations, of the same network.
        keys: (N,) one for each image to learn from, at least 2. One in eight is held out.
        shape: (H, W, C) of an image.
        steps: number of updates, each on a batch.
        conditions: entries with a row for each of the N images, such as labels or contexts; they
            replace those of `params`, which then is a dict.
        loss: of a batch of the student's images and the teacher's; the default is the squared
            error. Static, compared by identity.
        batch_size: images in an update.
        learning_rate: of Adam, with a cosine decay to 0.
        state: a file that keeps the run. If it is there already, the run goes on from it. It is
            written every 50 updates, and when the run is interrupted.
        progress: show a progress bar, with the loss on the images that are held out.

    Returns:
        The table, float32. It has one register for x, and one for each past prediction of x0.

    Raises:
        ValueError: tables that are stochastic, begin with different priors, or have levels of no
            known kind; numbers out of range; conditions with another number of rows; a state of
            another run.

    >>> import jax, jax.numpy as jnp, ddpm_jax as dj
    >>> scheduler = dj.DDIMScheduler(clip_sample=False, timestep_spacing="trailing")
    >>> def denoise(params, x, timestep):
    ...     return params * x
    >>> keys = dj.sample_keys(jax.random.key(0), 16)
    >>> start, teacher = scheduler.table(2), scheduler.table(20)
    >>> table = dj.learn_table(
    ...     denoise, jnp.float32(0.9), start, teacher, keys, (2, 2, 1), steps=5, progress=False
    ... )
    >>> len(table)
    2
    """
    _check_numbers(steps, batch_size, learning_rate)
    space = space_of(start, teacher)
    _check_prior(start, teacher)
    typed = typed_keys(keys)
    if typed.ndim != 1 or len(typed) < 2:
        raise ValueError(f"keys must be (N,), N at least 2, got shape {typed.shape}")
    run = _Run(
        denoise=denoise,
        params=params,
        space=space,
        loss=loss,
        conditions=_rows(conditions, params, len(typed)),
        x_T=prior(teacher, typed, shape=shape),
        steps=steps,
        batch_size=batch_size,
        learning_rate=learning_rate,
    )
    file = None if state is None else _File(Path(state), run.fingerprint())
    learner = run.begin() if file is None else file.read(run.begin())
    if learner.update < steps:
        learner = run.learn(learner, run.targets(teacher, progress), file, progress)
    return jax.tree.map(np.asarray, table_of(space, learner.best))


class Learner(NamedTuple):
    """What a run of learning goes on from.

    Attributes:
        update: number of updates so far.
        variables: the numbers.
        average: their average.
        optimizer: its state.
        best: the best average of all tries.
        best_loss: its loss on the images that are held out; infinite before the first try.
    """

    update: Int[AnyArray, ""]
    variables: Variables
    average: Variables
    optimizer: Any
    best: Variables
    best_loss: Float[AnyArray, ""]


@dataclass(frozen=True, kw_only=True)
class _Run:
    """A run of learning; its fields are the arguments of `learn_table`, checked."""

    denoise: Denoise
    params: Any
    space: Space
    loss: Loss
    conditions: Mapping[str, Any]
    x_T: Float[Array, "n h w c"]
    steps: int
    batch_size: int
    learning_rate: float

    @property
    def train(self) -> int:
        """Number of images to learn from; the others are held out."""
        count = len(self.x_T)
        return count - max(1, count // HELD_OUT)

    def begin(self) -> Learner:
        zeros = self.space.zeros()
        return Learner(jnp.int32(0), zeros, zeros, adam().init(zeros), zeros, jnp.float32(math.inf))

    def fingerprint(self) -> int:
        """Of all that decides how the run goes, but for the network."""
        numbers = (self.steps, self.batch_size, self.learning_rate)
        leaves = [*jax.tree.leaves(self.space), self.x_T[0], np.shape(self.x_T), numbers]
        code = 0
        for leaf in leaves:
            code = zlib.crc32(np.asarray(leaf, np.float64).tobytes(), code)
        return code

    def given(self, rows: AnyArray | slice) -> Any:
        """The params for some of the images."""
        if not self.conditions:
            return self.params
        chosen = {name: value[rows] for name, value in self.conditions.items()}
        return {**self.params, **chosen}

    def targets(self, teacher: Table, progress: bool) -> Float[Array, "n h w c"]:
        """The teacher's images."""
        from tqdm.auto import tqdm

        count, size = len(self.x_T), min(self.batch_size, len(self.x_T))
        found: list[Array] = []
        with tqdm(total=count, desc="teacher", unit="image", disable=not progress) as bar:
            for begin in range(0, count, size):
                rows = np.minimum(np.arange(begin, begin + size), count - 1)
                images = sample(self.denoise, self.given(rows), teacher, self.x_T[rows])
                found.append(jnp.asarray(images)[: count - begin])
                bar.update(len(found[-1].block_until_ready()))
        return jnp.concatenate(found)

    def learn(
        self,
        learner: Learner,
        targets: Float[Array, "n h w c"],
        file: "_File | None",
        progress: bool,
    ) -> Learner:
        """All updates that are left."""
        from tqdm.auto import tqdm

        size = min(self.batch_size, self.train)
        bar = tqdm(
            total=self.steps, initial=int(learner.update), desc="learning", disable=not progress
        )
        try:
            for update in range(int(learner.update), self.steps + 1):
                if update % TRY_EVERY == 0 or update == self.steps:
                    learner = self.tried(learner, targets)
                    bar.set_postfix(held_out=f"{float(learner.best_loss):.3g}")
                    if file is not None:
                        file.write(learner)
                    if not np.all(np.isfinite(learner.average.weights)):
                        warnings.warn(
                            f"learning stopped at update {update} of {self.steps}: its numbers are "
                            "no longer finite; a smaller learning_rate may help",
                            stacklevel=3,
                        )
                        break
                if update < self.steps:
                    rows = _batch(update, size, self.train)
                    rate = self.learning_rate * (1 + math.cos(math.pi * update / self.steps)) / 2
                    learner = _update(
                        self.denoise, self.loss, self.space, self.given(rows), learner,
                        self.x_T[rows], targets[rows], rate,
                    )  # fmt: skip
                    bar.update(1)
        except KeyboardInterrupt:
            if file is not None:
                file.write(learner)
            raise
        finally:
            bar.close()
        return learner

    def tried(self, learner: Learner, targets: Float[Array, "n h w c"]) -> Learner:
        """The learner after a try of its average on the images that are held out."""
        held = np.arange(self.train, len(self.x_T))
        losses: list[float] = []
        for begin in range(0, len(held), self.batch_size):
            rows = held[begin : begin + self.batch_size]
            losses.append(
                float(_loss(
                    self.denoise, self.loss, self.space, learner.average, self.given(rows),
                    self.x_T[rows], targets[rows],
                )) * len(rows)
            )  # fmt: skip
        found = sum(losses) / len(held)
        if not found < learner.best_loss:
            return learner
        return learner._replace(best=learner.average, best_loss=jnp.float32(found))


def _objective(
    denoise: Denoise,
    loss: Loss,
    space: Space,
    variables: Variables,
    given: Any,
    x_T: Array,
    wanted: Array,
) -> Array:
    """Equation (1)."""
    images = sample(denoise, given, space.table(variables), x_T, remat=True)
    return jnp.mean(loss(jnp.asarray(images), wanted))


_loss = jax.jit(_objective, static_argnums=(0, 1))


@partial(jax.jit, static_argnums=(0, 1))
def _update(
    denoise: Denoise,
    loss: Loss,
    space: Space,
    given: Any,
    learner: Learner,
    x_T: Array,
    wanted: Array,
    rate: Float[AnyArray, ""] | float,
) -> Learner:
    """One update of the numbers and of their average."""
    gradient = jax.grad(_objective, argnums=3)(
        denoise, loss, space, learner.variables, given, x_T, wanted
    )
    direction, optimizer = adam().update(gradient, learner.optimizer)
    variables = jax.tree.map(lambda v, d: v - rate * d, learner.variables, direction)
    average = jax.tree.map(lambda a, v: AVERAGE * a + (1 - AVERAGE) * v, learner.average, variables)
    return Learner(
        learner.update + 1, variables, average, optimizer, learner.best, learner.best_loss
    )


def _batch(update: int, size: int, count: int) -> np.ndarray:
    """The images of an update: each epoch goes through all of them in an order of its own."""
    epoch, place = divmod(update, count // size)
    return np.random.default_rng(epoch).permutation(count)[place * size : (place + 1) * size]


@dataclass(frozen=True)
class _File:
    """Keeps a learner in a file."""

    path: Path
    fingerprint: int

    def read(self, fresh: Learner) -> Learner:
        """The learner in the file, or the fresh one if there is none."""
        if not self.path.exists():
            return fresh
        leaves, structure = jax.tree.flatten(fresh)
        try:
            stored = read_npz(self.path)
            fingerprint = int(stored["fingerprint"])
            found = [jnp.asarray(stored[f"leaf_{i}"]) for i in range(len(leaves))]
        except (OSError, KeyError, ValueError, TypeError) as error:
            raise ValueError(
                f"{self.path} is no state of a run of learn_table, or is damaged ({error}): "
                "delete it to begin anew"
            ) from error
        if fingerprint != self.fingerprint:
            raise ValueError(
                f"{self.path} is the state of a run with other tables, keys, shape or numbers: "
                "give the same ones to go on with it, or another file"
            )
        return jax.tree.unflatten(structure, found)

    def write(self, learner: Learner) -> None:
        leaves: dict[str, Any] = {
            f"leaf_{i}": np.asarray(leaf) for i, leaf in enumerate(jax.tree.leaves(learner))
        }
        with replacing(self.path) as partial_file, partial_file.open("wb") as file:
            np.savez(file, fingerprint=np.int64(self.fingerprint), **leaves)


def _check_numbers(steps: object, batch_size: object, learning_rate: object) -> None:
    for name, value, least in (("steps", steps, 0), ("batch_size", batch_size, 1)):
        if not is_whole(value) or value < least:  # pyright: ignore[reportOperatorIssue]
            raise ValueError(f"{name} must be a whole number of at least {least}, got {value!r}")
    if not is_number(learning_rate) or not 0 < learning_rate < math.inf:  # pyright: ignore[reportOperatorIssue]
        raise ValueError(f"learning_rate must be a number above 0, got {learning_rate!r}")


def _check_prior(start: Table, teacher: Table) -> None:
    if teacher.noise_scale is not None and np.any(teacher.noise_scale):
        raise ValueError("teacher must be deterministic: one x_T is one image")
    scales = float(start.init_scale), float(teacher.init_scale)
    if abs(scales[0] / scales[1] - 1) > 0.01:
        raise ValueError(
            "start and teacher begin with noise of different standard deviations, "
            f"{scales[0]:g} and {scales[1]:g}: give both a grid that begins at one level, such as "
            'timestep_spacing="trailing"'
        )


def _rows(conditions: Mapping[str, Any] | None, params: Any, count: int) -> dict[str, Any]:
    """The conditions as arrays, one row for each image."""
    if not conditions:
        return {}
    if not isinstance(params, Mapping):
        raise ValueError(f"conditions need params that are a dict, got {type(params).__name__}")
    arrays = {name: jnp.asarray(value) for name, value in conditions.items()}
    wrong = [
        f"{name} {array.shape}" for name, array in arrays.items() if array.shape[:1] != (count,)
    ]
    if wrong:
        raise ValueError(f"conditions need {count} rows, one for each key, got {', '.join(wrong)}")
    return arrays
