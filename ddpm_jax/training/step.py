"""One update, and several in one call.

    (1)  g      = gradient of loss(params, batch, fold_in(key, step))
    (2)  params <- params + optimizer(g);   ema by `ddpm_jax.training.ema`;   step <- step + 1

With `accumulate` = A the batch is cut into A equal parts that are taken one after the other, and g
is the mean of their gradients: the step counts updates, whatever A is.
"""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, runtime_checkable

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from ddpm_jax._typing import AnyArray
from ddpm_jax.training.ema import Ema
from ddpm_jax.training.state import TrainState

if TYPE_CHECKING:
    import optax

Metrics: TypeAlias = Mapping[str, Float[Array, "..."]]
Update: TypeAlias = Callable[[TrainState, Any], tuple[TrainState, Metrics]]


@runtime_checkable
class LossFunction(Protocol):
    """What a step takes: `ddpm_jax.training.make_loss` makes one, and any function will do."""

    def __call__(
        self, params: Any, batch: Any, key: Array
    ) -> tuple[Float[Array, ""], Mapping[str, Float[Array, ""]]]:
        """The mean loss over a batch, and numbers to report by name."""
        ...


def make_update(
    loss: LossFunction,
    optimizer: "optax.GradientTransformation",
    ema: Ema | None = None,
    *,
    accumulate: int = 1,
) -> Update:
    """`update(state, batch) -> (state, metrics)`, pure and not compiled: equations (1) and (2).

    Args:
        loss: pure; its draws come from the key that it gets.
        optimizer: any optax transformation.
        ema: of the moving average; by default constant, 0.9999.
        accumulate: parts of a batch; must divide its size.

    Returns:
        A function whose metrics are those of the loss, and `grad_norm`, the gradient's global norm
        before clipping.

    Raises:
        ValueError: `accumulate` below 1, or, when called, not a divisor of the batch size.
    """
    average = Ema() if ema is None else ema
    if accumulate < 1:
        raise ValueError(f"accumulate must be at least 1, got {accumulate}")

    def gradient(params: Any, batch: Any, key: Array) -> tuple[Any, Metrics]:
        (_, metrics), grads = jax.value_and_grad(loss, has_aux=True)(params, batch, key)
        return grads, metrics

    def mean_gradient(params: Any, batch: Any, key: Array) -> tuple[Any, Metrics]:
        def add(total: Any, part: tuple[Any, Array]) -> tuple[Any, None]:
            return jax.tree.map(jnp.add, total, gradient(params, *part)), None

        parts = _cut(batch, accumulate), jax.random.split(key, accumulate)
        zeros = jax.tree.map(
            lambda leaf: jnp.zeros(leaf.shape, leaf.dtype),
            jax.eval_shape(gradient, params, *jax.tree.map(lambda leaf: leaf[0], parts)),
        )
        total, _ = lax.scan(add, zeros, parts)
        return jax.tree.map(lambda leaf: leaf / accumulate, total)

    def update(state: TrainState, batch: Any) -> tuple[TrainState, Metrics]:
        import optax

        key = jax.random.fold_in(state.key, state.step)
        take = gradient if accumulate == 1 else mean_gradient
        grads, metrics = take(state.params, batch, key)
        changes, opt_state = optimizer.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, changes)
        step = state.step + 1
        return TrainState(
            step=step,
            params=params,
            ema=average.update(state.ema, params, step),
            opt_state=opt_state,
            key=state.key,
        ), {**metrics, "grad_norm": optax.tree.norm(grads)}

    return update


def make_train_step(update: Update, *, shardings: Any = None) -> Update:
    """An update, compiled; the state that goes in is donated: use the one that comes out.

    Args:
        update: by `make_update`.
        shardings: of the state, as `ddpm_jax.training.state_shardings` gives them; None: the
            compiler decides.

    >>> import jax, jax.numpy as jnp, ddpm_jax as dj
    >>> from ddpm_jax.training import Optimizer, init_state, make_loss, make_train_step, make_update
    >>> model, params = dj.UNet2DModel.from_pretrained("digits")
    >>> loss = make_loss(model, dj.DDPMScheduler.from_pretrained("digits"))
    >>> adam = Optimizer().make(steps=1000)
    >>> train_step = make_train_step(make_update(loss, adam))
    >>> state = init_state(params, adam, jax.random.key(0))
    >>> state, metrics = train_step(state, {"image": jnp.zeros((2, 8, 8, 1))})
    >>> int(state.step), sorted(metrics)
    (1, ['grad_norm', 'loss'])
    """
    out = None if shardings is None else (shardings, None)
    return jax.jit(update, donate_argnums=0, out_shardings=out)


def make_train_steps(update: Update, *, shardings: Any = None) -> Update:
    """Several updates in one compiled call: batches and metrics have a leading axis of steps.

    Saves the time between two calls, which counts where a step takes a few milliseconds. The steps
    are the same, up to rounding: a compiler may fuse the body of a loop in other ways.

    Args:
        update: by `make_update`.
        shardings: as in `make_train_step`.
    """

    def steps(state: TrainState, batches: Any) -> tuple[TrainState, Metrics]:
        return lax.scan(update, state, batches)

    return make_train_step(steps, shardings=shardings)


def _cut(batch: Any, parts: int) -> Any:
    """(B, ...) to (parts, B / parts, ...); part p has the images p, p + parts, p + 2 parts, ...

    So each device keeps its images: no part is on one device only.
    """

    def cut(leaf: AnyArray) -> AnyArray:
        size = leaf.shape[0]
        if size % parts:
            raise ValueError(f"a batch of {size} does not divide into {parts} equal parts")
        return leaf.reshape(size // parts, parts, *leaf.shape[1:]).swapaxes(0, 1)

    return jax.tree.map(cut, batch)
