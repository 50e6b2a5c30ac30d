"""diffusers' schedulers in float64, with the noise handed in.

diffusers builds every table in float32. Inside `lifted()` the scheduler modules see a `torch` and a
`numpy` whose `float32` is `float64`, so the same code, unchanged, works in double precision, and
`randn_tensor` gives out what `noise.value` holds inside `injection()`, or the next of a list.
Brownian motions have the increments of `Brownian.parts`. `np.arange` leaves out a stop that
rounding adds: "trailing" spacing has one timestep too many there for 62 numbers of steps.
"""

from __future__ import annotations

import contextlib
import importlib
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any, ClassVar

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")
import diffusers  # noqa: E402

from ddpm_jax.schedulers import SCHEDULERS  # noqa: E402

NAMES = tuple(cls.__name__ for cls in SCHEDULERS)
TORCHSDE = ("DPMSolverSDEScheduler", "diffusers.schedulers.scheduling_dpmsolver_sde")


class Brownian:
    """Stands in for torchsde's BrownianInterval: the increments of `parts`.

    Attributes:
        parts: (low, high, z) of intervals that do not overlap; the increment is sqrt(high - low) z.
    """

    parts: ClassVar[list[tuple[float, float, Any]]] = []

    def __init__(self, **kwargs: Any):
        pass

    def __call__(self, low: Any, high: Any) -> torch.Tensor:
        low, high = float(low), float(high)
        near = 1e-4 * low  # diffusers takes sigmas by way of their logarithms
        inside = [one for one in self.parts if low - near < one[0] and one[1] < high + near]
        assert abs(sum(b - a for a, b, _ in inside) - (high - low)) < 1e-3 * (high - low)
        return sum((b - a) ** 0.5 * z for a, b, z in inside)


def _module(name: str) -> ModuleType:
    """The module of a scheduler; torchsde need not be installed."""
    if name != TORCHSDE[0]:
        return importlib.import_module(getattr(diffusers, name).__module__)
    stand_in: Any = ModuleType("torchsde")
    stand_in.BrownianInterval = Brownian
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "torchsde", stand_in)
        module: Any = importlib.import_module(TORCHSDE[1])
    module.torchsde = stand_in  # if it was imported before
    return module


MODULES: dict[str, ModuleType] = {name: _module(name) for name in NAMES}


class _Double:
    """A module in which `float32` means `float64`."""

    def __init__(self, module: ModuleType):
        self._module = module

    def __getattr__(self, name: str) -> Any:
        if name == "arange" and self._module is np:
            return _arange
        return getattr(self._module, "float64" if name == "float32" else name)


def _arange(start: Any, *rest: Any, **kwargs: Any) -> np.ndarray:
    """np.arange; without the stop itself, which rounding adds to a descending range of floats."""
    found = np.arange(start, *rest, **kwargs)
    descending = len(rest) == 2 and rest[1] < 0
    return found[:-1] if descending and len(found) and abs(found[-1] - rest[0]) < 1e-6 else found


class _Noise:
    """What the schedulers draw instead of torch's random numbers: a draw, or a list of them."""

    value: Any = None

    def __call__(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        assert self.value is not None, "noise was drawn where none was given"
        return self.value.pop(0) if isinstance(self.value, list) else self.value


noise = _Noise()


@contextlib.contextmanager
def lifted() -> Iterator[None]:
    """diffusers' scheduler modules in float64."""
    with contextlib.ExitStack() as stack:
        for module in MODULES.values():
            for name, double in (("torch", _Double(torch)), ("np", _Double(np))):
                if hasattr(module, name):
                    stack.callback(setattr, module, name, getattr(module, name))
                    setattr(module, name, double)
        stack.callback(torch.set_default_dtype, torch.get_default_dtype())
        torch.set_default_dtype(torch.float64)
        yield


@contextlib.contextmanager
def injection() -> Iterator[None]:
    with contextlib.ExitStack() as stack:
        for module in MODULES.values():
            if hasattr(module, "randn_tensor"):
                stack.callback(setattr, module, "randn_tensor", module.randn_tensor)
                module.randn_tensor = noise
        stack.callback(setattr, noise, "value", None)
        yield


@contextlib.contextmanager
def made_quickly() -> Iterator[None]:
    """Has schedulers that set a thousand timesteps when they are made, slowly, set one."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("KDPM2DiscreteScheduler", "KDPM2AncestralDiscreteScheduler", TORCHSDE[0]):
            kind = getattr(MODULES[name], name)
            plain = kind.set_timesteps
            patch.setattr(kind, "set_timesteps", lambda self, *_, of=plain: of(self, 1))
        yield


def build(name: str, alpha_bar: np.ndarray | None = None, **config: Any) -> Any:
    """The diffusers scheduler of that name, over this alpha_bar if one is given.

    Two correctly rounded alpha_bar differ in the last place, and 1 - alpha_bar_0 = 1e-4 makes four
    digits of it; so the steps are compared over one alpha_bar, and the alpha_bar by themselves.
    """
    if config.get("trained_betas") is not None:  # RePaint's takes no list
        config["trained_betas"] = np.asarray(config["trained_betas"])
    with made_quickly():
        scheduler = getattr(MODULES[name], name)(**config)
    if config.get("rescale_betas_zero_snr") and hasattr(scheduler, "_sigma_to_t"):
        _ends_at_the_last(scheduler)
    if alpha_bar is not None:
        scheduler.alphas_cumprod = torch.from_numpy(alpha_bar)
        if not config.get("set_alpha_to_one", name != "PNDMScheduler"):
            scheduler.final_alpha_cumprod = scheduler.alphas_cumprod[0]
    return scheduler


def _ends_at_the_last(scheduler: Any) -> None:
    """Gives the largest level the last timestep, in spite of rounding.

    The last sigma, 4096, may lie below those of the timesteps before, and a level less a rounding
    error is told the one of these that has the same sigma.
    """
    timestep_of = scheduler._sigma_to_t
    scheduler._sigma_to_t = lambda sigma, log_sigmas: timestep_of(sigma * (1 + 1e-12), log_sigmas)
