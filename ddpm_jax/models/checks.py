"""The faults of a network's config and inputs, as sentences: what several networks share."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from ddpm_jax._typing import Size
from ddpm_jax.models.layers.config import ACTIVATIONS

DTYPES = ("float32", "bfloat16", "float16")
RUNTIME = ("dtype", "param_dtype")


def values(
    config: Mapping[str, Any],
    *,
    choices: Mapping[str, tuple[Any, ...]],
    counts: Sequence[str],
    optional_counts: Sequence[str] = (),
    flags: Sequence[str] = (),
) -> Iterator[str]:
    """Faults of fields by themselves, and of the dtypes.

    Args:
        config: the fields by name.
        choices: the accepted values of a field.
        counts: fields with a positive integer.
        optional_counts: fields with a positive integer or None.
        flags: fields that are true or false.
    """
    for name, accepted in choices.items():
        if not any(
            config[name] == choice and type(config[name]) is type(choice) for choice in accepted
        ):
            yield f"{name} must be {one_of(accepted)}, got {config[name]!r}"
    for name in counts:
        if not is_count(config[name]):
            yield f"{name} must be a positive integer, got {config[name]!r}"
    for name in optional_counts:
        if not (config[name] is None or is_count(config[name])):
            yield f"{name} must be a positive integer or None, got {config[name]!r}"
    for name in flags:
        if not isinstance(config[name], bool):
            yield f"{name} must be true or false, got {config[name]!r}"
    exact = ("float64",) if jax.dtypes.canonicalize_dtype("float64") == "float64" else ()
    accepted = (*DTYPES, *exact)
    for name in RUNTIME:
        if _dtype_name(config[name]) not in accepted:
            yield f"{name} must be {one_of(accepted)}, got {config[name]!r}"


def of_images(config: Mapping[str, Any]) -> Iterator[str]:
    """Faults of the activation and of the sample size, which networks for images have."""
    if not (isinstance(config["act_fn"], str) and config["act_fn"].lower() in ACTIVATIONS):
        yield f"act_fn must be {one_of(tuple(ACTIVATIONS))}, got {config['act_fn']!r}"
    if not _is_size(config["sample_size"]):
        yield (
            "sample_size must be a positive integer, a pair (height, width) of them or None, "
            f"got {config['sample_size']!r}"
        )


def numbers(config: Mapping[str, Any]) -> Iterator[str]:
    """Faults of the numbers that all UNets have."""
    scale, eps, rate = (config[k] for k in ("mid_block_scale_factor", "norm_eps", "dropout"))
    if not (is_number(scale) and scale != 0):
        yield f"mid_block_scale_factor must be a number other than 0, got {scale!r}"
    if not (is_number(eps) and eps >= 0):
        yield f"norm_eps must be a number of at least 0, got {eps!r}"
    if not (is_number(rate) and 0 <= rate < 1):
        yield f"dropout must be a number in [0, 1), got {rate!r}"
    if not is_number(config["freq_shift"]):
        yield f"freq_shift must be a number, got {config['freq_shift']!r}"


def blocks(
    config: Mapping[str, Any],
    accepted: Mapping[str, tuple[str, ...]],
    plain_name: Callable[[str], str] | None = None,
) -> Iterator[str]:
    """Faults of the lists with an entry for each block: widths and block types.

    Args:
        config: the fields by name.
        accepted: the block types by the name of their list.
        plain_name: a block's name without its old prefix; None: there is no such prefix.
    """
    lists = ("block_out_channels", *accepted)
    for name in lists:
        if not (isinstance(config[name], tuple) and config[name]):
            yield f"{name} must be a list with an entry for each block, got {config[name]!r}"
            return
    lengths = {name: len(config[name]) for name in lists}
    if len(set(lengths.values())) > 1:
        counted = ", ".join(f"{count} {name}" for name, count in lengths.items())
        yield f"every block needs a width, a down type and an up type, got {counted}"
    if not all(is_count(c) for c in config["block_out_channels"]):
        yield f"block_out_channels must be positive integers, got {config['block_out_channels']}"
    prefix = "" if plain_name is None else ", also with the prefix UNetRes"
    for name, known in accepted.items():
        texts = [block if isinstance(block, str) else repr(block) for block in config[name]]
        for block in dict.fromkeys(texts):
            if (plain_name(block) if plain_name else block) not in known:
                yield (
                    f"{name} has {block!r}, which is not supported; accepted: "
                    f"{one_of(known)}{prefix}"
                )


def transformer(config: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """Faults of the norms and of the heads of a transformer, whose fields have this prefix."""
    names = ("layer_norm_eps", "hidden_size", "num_attention_heads")
    eps, width, heads = (config[prefix + name] for name in names)
    if not (is_number(eps) and eps >= 0):
        yield f"{prefix}layer_norm_eps must be a number of at least 0, got {eps!r}"
    if is_count(width) and is_count(heads) and width % heads:
        yield (f"{prefix}num_attention_heads {heads} does not divide {prefix}hidden_size {width}")


def image(x: Any, channels: int, name: str = "x") -> Iterator[str]:
    """Faults of the images that a network is called with."""
    shape = jnp.shape(x)
    if len(shape) != 4 or shape[-1] != channels:
        yield f"{name} must be (batch, height, width, {channels}), channels last, got shape {shape}"
    elif not jnp.issubdtype(jnp.result_type(x), jnp.floating):
        yield f"{name} must hold floats, got {jnp.result_type(x)}"


def timestep(batch: Size, given: ArrayLike) -> Iterator[str]:
    """Faults of the timesteps of a batch."""
    shape = jnp.shape(given)
    if shape not in ((), (batch,)):
        yield f"timestep must be a scalar or of shape ({batch},), got shape {shape}"


def square(x: Any, side: int, channels: int, name: str) -> Iterator[str]:
    """Faults of the images of a network that takes one size only."""
    found = list(image(x, channels, name))
    yield from found
    if not found and jnp.shape(x)[1:3] != (side, side):
        yield f"{name} must be of {side} x {side}, got shape {jnp.shape(x)}"


def refuse(found: Iterable[str]) -> None:
    """ValueError with all faults, if there are any."""
    if faults := list(found):
        raise ValueError("; ".join(faults))


def is_count(value: Any) -> bool:
    """Whether it is a positive integer."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def is_number(value: Any) -> bool:
    """Whether it is a finite number."""
    return (
        isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < float("inf")
    )


def one_of(accepted: tuple[Any, ...]) -> str:
    """The accepted values in words."""
    *rest, last = (repr(value) for value in accepted)
    return f"{', '.join(rest)} or {last}" if rest else last


def _is_size(value: Any) -> bool:
    if isinstance(value, tuple):
        return len(value) == 2 and all(is_count(side) for side in value)
    return value is None or is_count(value)


def _dtype_name(value: Any) -> str | None:
    try:
        return jnp.dtype(value).name
    except TypeError:
        return None
