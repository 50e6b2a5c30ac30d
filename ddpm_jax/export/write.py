"""Writes the file: the programs of a run, its weights, and what it is.

jax reads exports that are up to six months older than itself, and three weeks newer; so the file
names its jax and the command that makes it again:
https://docs.jax.dev/en/latest/export/export.html#compatibility-guarantees
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import jax
import numpy as np
from jax import export

from ddpm_jax._version import __version__
from ddpm_jax.export import file
from ddpm_jax.export.program import GUIDED, Run, flat, inputs_of, stored
from ddpm_jax.extras import check_installed
from ddpm_jax.hub import class_names
from ddpm_jax.models.unet_2d.parts import some_labels
from ddpm_jax.pipelines.call import checked_interval
from ddpm_jax.pipelines.inputs import count_of, image_shape
from ddpm_jax.pipelines.unconditional import UnconditionalPipeline
from ddpm_jax.tables.inverted import ascends
from ddpm_jax.tables.table import Table

LOCATIONS = {
    "jax_include_full_tracebacks_in_locations": True,
    "jax_traceback_in_locations_limit": 0,
}
"""jax's settings with which a program has no paths of source files: no line of a full traceback."""
PLATFORMS = ("cpu", "cuda", "rocm", "tpu")
"""jax.export's names."""


def export_sampler(
    path: str | os.PathLike[str],
    pipe: UnconditionalPipeline,
    table: Table,
    *,
    batch_size: int | None = None,
    platforms: Sequence[str] = (),
    guided: bool = False,
    guidance_interval: tuple[float, float] | None = None,
    x_T: bool = False,
    made_by: str = "ddpm_jax.export_sampler",
    settings: Mapping[str, str] | None = None,
) -> None:
    """Writes a whole run as a file that a process with jax and NumPy runs, without this library.

    docs/export.md has the lines that do, and `load_sampler` does it too. jax's serialization needs
    the package flatbuffers, here and there.

    Args:
        path: an .npz file; it is written whole or not at all.
        pipe: a pipeline with one network. Its scheduler takes no part.
        table: the run, such as `pipe.scheduler.table(50)`.
        batch_size: of each call; None: any.
        platforms: "cpu", "cuda", "rocm", "tpu": what the file is for. No such device is needed
            here. By default the platform of this process.
        guided: the program takes the scale of classifier-free guidance, and evaluates the network
            on a batch of twice the size. For models with a class that means no class.
        guidance_interval: as of a pipeline's call.
        x_T: the program takes the starting points too, already multiplied by `table.init_scale`.
        made_by: the command that makes the file again, for the error where jax refuses it.
        settings: what else the file should say of itself, by name.

    Raises:
        ImportError: flatbuffers is not installed.
        ValueError: an argument is out of range, or does not match another one or the model.

    >>> import ddpm_jax as dj
    >>> path = getfixture("tmp_path") / "sampler.npz"
    >>> pipe = dj.DDIMPipeline.from_pretrained("digits")
    >>> dj.export_sampler(path, pipe, pipe.scheduler.table(4), platforms=["cpu", "cuda"])
    >>> dj.load_sampler(path).about["platforms"]
    ['cpu', 'cuda']
    """
    chosen = checked_platforms(platforms)
    check_run(table)
    size = None if batch_size is None else count_of("batch_size", batch_size)
    run = Run(
        pipe.unet,
        table,
        dtypes={name: leaf.dtype for name, leaf in flat(pipe.params).items()},
        no_class=no_class_of(pipe) if guided else None,
        interval=checked_interval(guidance_interval, table, GUIDED if guided else 1.0),
        pixels=pipe.pixels,
    )
    inputs, weights = inputs_of(pipe.unet, guided, x_T), stored(pipe.params)
    programs = _programs(run, chosen, weights, _specs(inputs, size))
    config = pipe.unet.config
    about = {
        "made_by": made_by,
        "ddpm_jax": __version__,
        "jax": jax.__version__,
        "calling_convention_version": programs[chosen[0]].calling_convention_version,
        "platforms": list(chosen),
        "batch_size": size,
        "inputs": inputs,
        "image": list(image_shape(pipe.unet)),
        "evaluations": len(table),
        "classes": None if config.class_embed_type else config.num_class_embeds,
        "class_names": {str(number): name for number, name in pipe.class_names.items()},
        "settings": dict(settings or {}),
    }
    serialized = {name: bytes(program.serialize()) for name, program in programs.items()}
    file.write(path, file.Content(about, serialized, weights))


def _programs(
    run: Run,
    platforms: Sequence[str],
    weights: Mapping[str, np.ndarray],
    inputs: Mapping[str, jax.ShapeDtypeStruct],
) -> dict[str, export.Exported]:
    specs = {name: _spec(leaf.shape, leaf.dtype) for name, leaf in weights.items()}
    with _without_paths():
        return {
            name: export.export(jax.jit(run.program(name)), platforms=[name])(specs, **inputs)
            for name in platforms
        }


@contextmanager
def _without_paths() -> Iterator[None]:
    """By default a program has the paths of the source files of the machine that traced it."""
    before = {name: getattr(jax.config, name) for name in LOCATIONS}
    for name, value in LOCATIONS.items():
        jax.config.update(name, value)
    try:
        yield
    finally:
        for name, value in before.items():
            jax.config.update(name, value)


def checked_platforms(given: Sequence[str]) -> tuple[str, ...]:
    """The platforms of an export, without repetitions; by default that of this process.

    Raises:
        ImportError: flatbuffers is not installed.
        ValueError: a platform that jax does not export to.
    """
    check_installed(("flatbuffers",), "an export", "export")
    named = [given] if isinstance(given, str) else list(given)
    if wrong := [name for name in named if name not in PLATFORMS]:
        raise ValueError(f"platforms must be of {', '.join(PLATFORMS)}; got {', '.join(wrong)}")
    return tuple(dict.fromkeys(named or [export.default_export_platform()]))


def check_run(table: Table) -> None:
    """Raises ValueError unless a table makes images."""
    if not isinstance(table, Table):
        raise ValueError(f"table must be a ddpm_jax.Table, got {type(table).__name__}")
    if np.ndim(table.timestep) != 1:
        raise ValueError("this is a stack of tables: export each alone")
    if ascends(table):
        raise ValueError("table goes up, from images to noise, and makes no images")


def no_class_of(pipe: UnconditionalPipeline) -> int:
    """What guidance moves away from. ValueError if the model has no such class."""
    found = class_names.no_class(pipe.class_names)
    if found is None or some_labels(pipe.unet.config) is None:
        raise ValueError(
            "guided is for networks that were trained with dropped labels, and this one names no "
            "class that means no class"
        )
    return found


def _specs(
    inputs: Mapping[str, Mapping[str, Any]], batch_size: int | None
) -> dict[str, jax.ShapeDtypeStruct]:
    batch = export.symbolic_shape("b")[0] if batch_size is None else batch_size
    return {
        name: _spec([batch if side == "b" else side for side in one["shape"]], one["dtype"])
        for name, one in inputs.items()
    }


def _spec(shape: Sequence[Any], dtype: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(tuple(shape), dtype)
