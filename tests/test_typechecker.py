"""Annotations are checked while the tests run, whether they name arrays or not."""

from typing import Any

import jax.numpy as jnp
import pytest
import typechecker
from beartype.roar import BeartypeCallHintViolation
from jaxtyping import Array, Float, TypeCheckError

from ddpm_jax.models.layers.attention import attend
from ddpm_jax.models.layers.basic import default_groups, moments

Row = Float[Array, " c"]


def decorated(fn: Any) -> Any:
    """As the import hook has it."""
    return typechecker.jaxtyped(typechecker=typechecker.check)(fn)


def test_arguments_of_the_library():
    with pytest.raises(TypeCheckError):
        moments(jnp.zeros((2, 4)), 2)  # not images
    with pytest.raises(BeartypeCallHintViolation):
        default_groups("eight")  # pyright: ignore[reportArgumentType]


def test_axes_of_one_name_are_of_one_size():
    q, k = jnp.zeros((2, 3, 1, 4)), jnp.zeros((5, 3, 1, 4))
    with pytest.raises(TypeCheckError):
        attend(q, k, k)


@pytest.mark.parametrize("result", [Row, "Row", Row | None, tuple[Row, int], dict[str, Row]])
def test_names_arrays(result: Any):
    assert typechecker.names_arrays(result)


@pytest.mark.parametrize("result", [int, None, tuple[int, ...], dict[str, Any] | None])
def test_names_none(result: Any):
    assert not typechecker.names_arrays(result)


def test_results():
    def plain() -> int:
        return "1"  # pyright: ignore[reportReturnType]

    def array() -> Row:
        return jnp.zeros((1, 1))

    with pytest.raises(BeartypeCallHintViolation):
        decorated(plain)()
    with pytest.raises(TypeCheckError):
        decorated(array)()


def test_as_users_run(as_users_run: None):
    assert default_groups(128.0) == 32  # pyright: ignore[reportArgumentType]
