"""What the calls of all pipelines share: the options of a run, its table, and its result."""

import math
from collections.abc import Callable, Mapping
from inspect import signature
from typing import Any, Literal, TypeAlias, TypedDict, get_args

import numpy as np
from jax.sharding import NamedSharding
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from ddpm_jax._typing import AnyArray, is_number
from ddpm_jax.guidance.classifier_free import guidance_interval
from ddpm_jax.guidance.guide import Guide
from ddpm_jax.images import to_pil
from ddpm_jax.pipelines.generate import Decode, Preview, generate, moving
from ddpm_jax.pipelines.inputs import Inputs, count_of
from ddpm_jax.schedulers import GridOptions, Scheduler
from ddpm_jax.tables.table import Table

OutputType: TypeAlias = Literal["pil", "np", "jax"]


class RunOptions(TypedDict, total=False):
    """Options of a call, the same for all pipelines."""

    table: Table | None
    """Any table of a scheduler. It replaces the number of steps and the scheduler's options. With
    `start=` and `x_T` a run is image to image."""
    x_T: ArrayLike | None
    """(B, H, W, C) starting point, already multiplied by `table.init_scale`. It replaces the noise
    that is drawn from the key."""
    return_dict: bool
    """False returns a plain tuple."""
    sharding: NamedSharding | None
    """Splits the batch over a mesh's devices: NamedSharding(mesh, P("batch")). The batch is padded
    to a multiple of the parts; the padding is dropped at the end. Params that are not on the mesh
    are copied to it at each call. To avoid the copy, load them with `sharding=`."""
    progress: bool
    """Show a progress bar of network evaluations; the default is True."""
    callback: Preview | None
    """Called as callback(evaluations, images) after every `callback_every` evaluations and after
    the last one. `images` are the predicted clean images, a NumPy array as for "np"."""
    callback_every: int
    """See `callback`; the default is 1."""
    advanced: Callable[[int], object] | None
    """Called during the run with the number of evaluations since the last call, such as the
    `update` of a progress bar of one's own, which takes the place of ours."""


def check_options(given: Mapping[str, Any], accepted: Any) -> None:
    """Checks the options of a call that are the same for all pipelines, before any work.

    Args:
        given: the options by name.
        accepted: a subclass of `RunOptions`.

    Raises:
        TypeError: there is no such option.
        ValueError: `callback_every` is not a count, or `guidance_scale` not a finite number.
    """
    unknown = sorted(set(given) - set(accepted.__annotations__))
    if unknown:
        raise TypeError(f"a call got an unexpected keyword argument {unknown[0]!r}")
    count_of("callback_every", given.get("callback_every", 1))
    scale = given.get("guidance_scale", 1.0)
    scalar = scale.item() if np.ndim(scale) == 0 and hasattr(scale, "item") else scale
    if not is_number(scalar) or not math.isfinite(scalar):
        raise ValueError(f"guidance_scale must be a finite number, got {scale!r}")


def check_guide(guide: Guide | None, **others: Any) -> None:
    """Raises ValueError for what is no guide, or one beside an option that it cannot go with."""
    if not isinstance(guide, Guide | None):
        raise ValueError(
            "guide must be what pigdm, diffpir, dps or classifier_guide gives, "
            f"got {type(guide).__name__}"
        )
    given = [name for name, value in others.items() if value is not None]
    if guide is not None and given:
        raise ValueError(f"guide and {given[0]} cannot be given together")


def checked_interval(
    given: tuple[float, float] | None, table: Table, guidance_scale: float
) -> Float[np.ndarray, "2"] | None:
    """The option `guidance_interval` as timesteps of a table, or None.

    Raises:
        ValueError: it is not two numbers in ascending order, or there is no guidance.
    """
    if given is None:
        return None
    if guidance_scale <= 1:
        raise ValueError(f"guidance_interval needs a guidance_scale above 1, got {guidance_scale}")
    if np.shape(given) != (2,):
        raise ValueError(f"guidance_interval must be (low, high), got {given!r}")
    return guidance_interval(table, *given)


def check_output_type(given: Any, accepted: Any = OutputType) -> None:
    """Raises ValueError unless an output type is one of a Literal's."""
    *most, last = (f'"{name}"' for name in get_args(accepted))
    if given not in get_args(accepted):
        raise ValueError(f"output_type must be {', '.join(most)} or {last}, got {given!r}")


def chosen_table(
    scheduler: Scheduler, table: Table | None, run: Mapping[str, Any], default_steps: int
) -> Table:
    """The given table, or the scheduler's.

    Options that are None are the scheduler's own defaults. Options of 0 or False are not passed on
    to a scheduler that lacks them. `run` has `num_inference_steps` and options of the scheduler's
    `table`.

    Raises:
        ValueError: `table` is not a table, or stands beside options that it replaces; or the
            scheduler lacks an option.
    """
    steps = run["num_inference_steps"]
    given = {k: v for k, v in run.items() if v is not None and k != "num_inference_steps"}
    wanted = {k: v for k, v in given.items() if v}
    if table is not None:
        if not isinstance(table, Table):
            raise ValueError(f"table must be a ddpm_jax.Table, got {type(table).__name__}")
        also = wanted if steps == default_steps else {"num_inference_steps": steps, **wanted}
        if also:
            listed = ", ".join(f"{k}={v}" for k, v in also.items())
            raise ValueError(f"table= replaces {listed}: pass one or the other")
        return table
    if scheduler.ascends:
        raise ValueError(
            f"{type(scheduler).__name__} walks from images to noise, and makes no images: "
            "`encode` of a pipeline takes it, or set another scheduler"
        )
    accepted = {*signature(scheduler.table).parameters, *GridOptions.__annotations__}
    refused = sorted(set(wanted) - accepted)
    if refused:
        raise ValueError(
            f"{type(scheduler).__name__} has no option {' or '.join(refused)}: "
            f"leave out {' and '.join(f'{name}={wanted[name]}' for name in refused)}"
        )
    return scheduler.table(steps, **{k: v for k, v in given.items() if k in accepted})


def run_table(
    denoise: Callable[..., Array],
    params: Any,
    table: Table,
    inputs: Inputs,
    decode: Decode,
    *,
    progress: bool = True,
    callback: Preview | None = None,
    callback_every: int = 1,
    advanced: Callable[[int], object] | None = None,
) -> Float[Array, "b h w c"]:
    """`generate` with a progress bar, or the caller's."""
    from tqdm.auto import tqdm

    with tqdm(total=len(table), disable=not progress or advanced is not None) as bar:
        return generate(
            denoise,
            params,
            table,
            inputs,
            decode,
            advanced=advanced or moving(bar),
            preview=callback,
            preview_every=callback_every,
        )


def converted(output_type: str, images: Float[AnyArray, "b h w c"]) -> Any:
    """Images in [0, 1] as "pil", "np" or "jax"."""
    if output_type == "jax":
        return images
    host = np.asarray(images)
    return host if output_type == "np" else to_pil(host)
