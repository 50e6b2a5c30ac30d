r"""A block that keeps only its input for the backward pass, and computes its inside again there.

With f the block, x its input and dy the gradient that arrives at its output:

    (1)  forward    y = f(x),  of which x is kept
    (2)  backward   dx = the gradient of f at x + 0 dy_0

dy_0 is one pixel of dy. Without it nothing in (2) would wait for dy, and a compiler might do (2)
during (1), find that it is (1), and keep everything after all. `jax.checkpoint` puts an
optimisation barrier there, which XLA drops on the CPU before it looks for common expressions.

References: Chen et al. 2016, arXiv:1604.06174.
"""

from collections.abc import Callable
from typing import Any, TypeVar, cast

import jax
from flax import linen as nn
from flax.core import lift
from flax.linen import transforms
from jax import lax

Block = TypeVar("Block", bound=nn.Module)


def rematerialised(block: type[Block]) -> type[Block]:
    """The same module, with the same params and draws; its first argument must be pictures.

    It has no forward-mode derivative.
    """
    return cast(type[Block], transforms.lift_transform(_lifted, block))


def _lifted(call: Callable[..., Any]) -> Callable[..., Any]:
    """A module's call on a scope of its own, as a pure function of what it reads."""

    def inner(scope_of: Any, leave: Any, variables: Any, keys: Any, *args: Any) -> Any:
        def run(variables: Any, keys: Any, *args: Any) -> tuple[Any, Any]:
            scope = scope_of(variables, keys)
            return call(scope, *args), leave(scope)

        # Traced once: a second call of a scope would draw anew.
        run, consts = jax.closure_convert(run, variables, keys, *args)
        return _late(run)(variables, keys, *args, *consts)

    return lift.pack(inner, (True,), (True,), (True,), name="remat")


def _late(run: Callable[..., Any]) -> Callable[..., Any]:
    """Equations (1) and (2) of a function of (variables, keys, x, ...)."""

    @jax.custom_vjp
    def once(*args: Any) -> Any:
        return run(*args)

    def keep(*args: Any) -> tuple[Any, Any]:
        return run(*args), args

    def again(args: Any, change: Any) -> Any:
        variables, keys, *pictures = args
        (variables, pictures), change = lax.optimization_barrier(((variables, pictures), change))
        x, *rest = pictures
        x = x + 0 * change[0][:, :1, :1, :1].astype(x.dtype)
        _, pull = jax.vjp(lambda variables, *args: run(variables, keys, *args), variables, x, *rest)
        of_variables, *of_args = pull(change)
        return of_variables, None, *of_args

    once.defvjp(keep, again)
    return once
