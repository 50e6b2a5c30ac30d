"""Runs an exported sampler: checks what jax would refuse with an error of its own, or not at all.

jax 0.7.2 reads a file of jax 0.10.2 without an error and then expects no device at all. So what is
read is compared with what the file says of itself.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax import export
from jaxtyping import Array, Float
from numpy.typing import ArrayLike

from ddpm_jax.export import file
from ddpm_jax.extras import check_installed
from ddpm_jax.hub.files import first_line, listed
from ddpm_jax.sampling.segments import out_of_memory


def load_sampler(path: str | os.PathLike[str]) -> "ExportedSampler":
    """Reads a file of `export_sampler` or `ddpm-jax export`, for the platform of this process.

    Raises:
        ImportError: flatbuffers is not installed.
        ValueError: no such file, something else or damaged; it is for other platforms; or this jax
            refuses its programs. The message says which command makes it again.

    >>> import ddpm_jax as dj
    >>> path = getfixture("tmp_path") / "sampler.npz"
    >>> pipe = dj.DDIMPipeline.from_pretrained("digits")
    >>> dj.export_sampler(path, pipe, pipe.scheduler.table(4))
    >>> sampler = dj.load_sampler(path)  # sampler(seed=0, numbers=[0, 5]) makes two images
    >>> sampler.about["image"]
    [8, 8, 1]
    """
    check_installed(("flatbuffers",), "an exported sampler", "export")
    return ExportedSampler(path)


class ExportedSampler:
    """A run in a file, from `load_sampler`.

    Attributes:
        about: what the file says of itself: "jax", "platforms", "batch_size" (None: any), "inputs",
            "image" (H, W, C), "evaluations", "class_names", "settings", "made_by".
    """

    about: Mapping[str, Any]

    def __init__(self, path: str | os.PathLike[str]):
        self._path = Path(path)
        found = file.read(path)
        self.about = found.about
        program = self._program(found.programs)
        self._weights = jax.device_put(dict(found.weights))
        self._run = jax.jit(program.call)

    def __call__(
        self,
        seed: ArrayLike = 0,
        numbers: ArrayLike | None = None,
        *,
        labels: ArrayLike | None = None,
        guidance: ArrayLike | None = None,
        x_T: ArrayLike | None = None,
    ) -> Float[Array, "b h w c"]:
        """Generates images.

        Args:
            seed: from 0 to 4294967295.
            numbers: (B,) which images of the seed; by default the first ones of the file's batch
                size, or image 0 alone where it has none.
            labels: (B,) for models with classes: a class of each image by number, or one for all.
            guidance: the scale, if the file was made for guidance. At 1 there is none.
            x_T: (B, H, W, C), if the file was made for starting points.

        Returns:
            (B, H, W, C) float32 images in [0, 1].

        Raises:
            ValueError: an input is missing, is none of the file's, or of another shape or range.
        """
        if numbers is None:
            numbers = np.arange(self.about["batch_size"] or 1)
        numbers = np.asarray(numbers)
        optional = {"labels": labels, "guidance": guidance, "x_T": x_T}
        given = {name: value for name, value in optional.items() if value is not None}
        inputs = self._checked({"seed": seed, "numbers": numbers, **given}, numbers.size)
        try:
            return self._run(self._weights, **inputs)
        except (ValueError, NotImplementedError, jax.errors.JaxRuntimeError) as error:
            if out_of_memory(error):
                raise
            raise self._refused(error) from error  # the inputs are right, so it is the program

    def _program(self, programs: Mapping[str, bytes]) -> export.Exported:
        """The program of this platform, as jax reads it."""
        platform = export.default_export_platform()
        if platform not in programs:
            raise ValueError(
                f"{self._path} is for {listed(programs)}, and this process runs on {platform}: "
                f"make it again with --platforms {platform}: {self.about['made_by']}"
            )
        try:
            program = export.deserialize(bytearray(programs[platform]))
        except Exception as error:  # jax's own, and those of its parser
            raise self._refused(error) from error
        low = export.minimum_supported_calling_convention_version
        high = export.maximum_supported_calling_convention_version
        if not low <= program.calling_convention_version <= high:
            version = program.calling_convention_version
            raise self._refused(f"it takes calling conventions {low} to {high}, got {version}")
        if (*program.platforms, program.nr_devices) != (platform, 1):
            raise self._refused("it reads the program as another one")
        return program

    def _refused(self, fault: Exception | str) -> ValueError:
        reason = fault if isinstance(fault, str) else first_line(fault)
        return ValueError(
            f"{self._path} was made by jax {self.about['jax']}, and jax {jax.__version__} refuses "
            f"it ({reason}): make it again: {self.about['made_by']}"
        )

    def _checked(self, given: Mapping[str, Any], count: int) -> dict[str, np.ndarray]:
        """The inputs in the file's dtypes."""
        expected: Mapping[str, Any] = self.about["inputs"]
        faults = [f"{name} is missing" for name in expected if name not in given]
        faults += [f"{name} is none of its inputs" for name in given if name not in expected]
        size = self.about["batch_size"]
        if count < 1 or count != (size or count):
            faults.append(f"numbers must be {size or 'one or more'}, got {count}")
        checked: dict[str, np.ndarray] = {}
        for name in [] if faults else expected:
            shape = tuple(count if side == "b" else side for side in expected[name]["shape"])
            checked[name], fault = _as(given[name], shape, expected[name]["dtype"])
            faults += [f"{name} {fault}"] if fault else []
        classes = self.about["classes"]
        if not faults and classes is not None and "labels" in checked:
            wrong = sorted({int(one) for one in checked["labels"] if not 0 <= one < classes})
            faults += [f"labels must lie in 0..{classes - 1}, got {listed(wrong)}"] if wrong else []
        if faults:
            raise ValueError(f"{self._path}: {'; '.join(faults)}")
        return checked


def _as(value: Any, shape: tuple[int, ...], dtype: str) -> tuple[np.ndarray, str | None]:
    """The value in a dtype, and its fault or None. A single number stands for all images."""
    array, kind = np.asarray(value), np.dtype(dtype)
    single = array.ndim == 0 and len(shape) == 1
    if array.shape != shape and not single:
        return array, f"must be of shape {shape}, got {array.shape}"
    whole = kind.kind in "iu"
    if array.dtype.kind not in ("iu" if whole else "iuf"):
        return array, f"must be {'whole ' if whole else ''}numbers, got {array.dtype}"
    low, high = (0, np.iinfo(kind).max) if whole else (-np.inf, np.inf)
    if not np.all((low <= array) & (array <= high)):
        return array, f"must be numbers from {low} to {high}"
    return np.broadcast_to(array, shape).astype(kind), None
