"""diffusers' schedulers in float64, with the noise handed in.

diffusers builds every table in float32. Inside `lifted()` the scheduler modules see a `torch` and a
`numpy` whose `float32` is `float64`, so the same code, unchanged, works in double precision, and
`randn_tensor` gives out what `noise.value` holds inside `injection()`.
"""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")
import diffusers  # noqa: E402

from ddpm_jax.schedulers import SCHEDULERS  # noqa: E402

NAMES = tuple(cls.__name__ for cls in SCHEDULERS)
MODULES: dict[str, ModuleType] = {
    name: importlib.import_module(getattr(diffusers, name).__module__) for name in NAMES
}


class _Double:
    """A module in which `float32` means `float64`."""

    def __init__(self, module: ModuleType):
        self._module = module

    def __getattr__(self, name: str) -> Any:
        return getattr(self._module, "float64" if name == "float32" else name)


class _Noise:
    """What the schedulers draw instead of torch's random numbers."""

    value: Any = None

    def __call__(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        assert self.value is not None, "noise was drawn where none was given"
        return self.value


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


def build(name: str, alpha_bar: np.ndarray | None = None, **config: Any) -> Any:
    """The diffusers scheduler of that name, over this alpha_bar if one is given.

    Two correctly rounded alpha_bar differ in the last place, and 1 - alpha_bar_0 = 1e-4 makes four
    digits of it; so the steps are compared over one alpha_bar, and the alpha_bar by themselves.
    """
    scheduler = getattr(MODULES[name], name)(**config)
    if alpha_bar is not None:
        scheduler.alphas_cumprod = torch.from_numpy(alpha_bar)
        if not config.get("set_alpha_to_one", name != "PNDMScheduler"):
            scheduler.final_alpha_cumprod = scheduler.alphas_cumprod[0]
    return scheduler
