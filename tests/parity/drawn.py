"""Random combinations of a scheduler's fields, of the options of its run, and of numbers of steps.

Values come from the types of the fields and from `VARIATIONS`, so a new scheduler needs nothing
here; a new option of `table` needs a line in `OPTIONS`.
"""

import dataclasses
import functools
import inspect
import math
import zlib
from collections.abc import Callable
from types import NoneType
from typing import Any, Literal, get_args, get_origin, get_type_hints

import numpy as np

from ddpm_jax.schedulers.base import GridOptions
from tests.parity.scheduler_cases import OURS_ALONE, Case
from tests.schedulers.matrix import VARIATIONS, Family

LENGTHS = (40, 250, 1000)
STEPS = (*range(1, 13), *range(1, 13), 13, 37, 61)  # the last three divide no length
CHANCE = 0.1  # of a field beyond those of VARIATIONS

# Numbers of fields in addition to those of VARIATIONS.
MORE: dict[str, tuple[float, ...]] = {"steps_offset": (30,), "noise_sampler_seed": (0,)}
# Fields that need each other, where the tests that walk VARIATIONS cannot have them.
TOGETHER = ({"use_dynamic_shifting": True, "time_shift_type": "linear"},)

# Options of `table`: the chance that one is given, and how it is drawn.
Draw = Callable[[np.random.Generator], Any]
OPTIONS: dict[str, tuple[float, Draw]] = {
    "eta": (0.7, lambda rng: _pick(rng, (0.0, 1.0, rng.random()))),
    "use_clipped_model_output": (0.3, lambda rng: bool(rng.integers(2))),
    "s_churn": (0.5, lambda rng: _pick(rng, (0.0, 10 * rng.random(), 60 * rng.random()))),
    "s_tmin": (0.2, lambda rng: rng.random()),
    "s_tmax": (0.2, lambda rng: 1 + 40 * rng.random()),
    "s_noise": (0.3, lambda rng: 1 + 0.1 * rng.random()),
    "order": (0.6, lambda rng: int(rng.integers(1, 6))),
    "mu": (1.0, lambda rng: 0.3 + rng.random()),
    "jump_length": (1.0, lambda rng: int(rng.integers(1, 5))),
    "jump_n_sample": (1.0, lambda rng: int(rng.integers(1, 4))),
}
# Options that a field enables.
ENABLED_BY = {"mu": "use_dynamic_shifting"}


@dataclasses.dataclass(frozen=True, eq=False)
class Drawn:
    """A combination, and the seed and index that draw it."""

    seed: int
    index: int
    case: Case

    @property
    def name(self) -> str:
        """What `python -m tests.parity.sweep --only` takes."""
        return f"{self.seed}/{self.index}/{self.case.name}"

    def __str__(self) -> str:
        return f"{self.name} {self.case}"


def draw(family: Family, seed: int, index: int) -> Drawn:
    """The combination of a scheduler that a seed and an index choose."""
    name = family.cls.__name__
    rng = np.random.default_rng([seed, index, zlib.crc32(name.encode())])
    fields = sorted(family.fields)
    config, call = _config(rng, family, fields[index % len(fields)]), {}
    for option in options_of(family):
        chance, of = OPTIONS[option]
        given = rng.random() < chance
        drawn = _short(of(rng))
        if given and config.get(ENABLED_BY.get(option, ""), option not in ENABLED_BY):
            call[option] = drawn
    length = config.get("num_train_timesteps", family.plain.get("num_train_timesteps"))
    steps = int(_pick(rng, [n for n in STEPS if n <= length]))
    return Drawn(seed, index, Case(name, steps, config, call))


def options_of(family: Family) -> list[str]:
    """What a scheduler's `table` takes beyond what every one takes."""
    known = {"self", "num_inference_steps", "grid", *GridOptions.__annotations__}
    return sorted(set(inspect.signature(family.cls.table).parameters) - known)


def _config(rng: np.random.Generator, family: Family, wanted: str) -> dict[str, Any]:
    """Some of VARIATIONS, whose fields need each other, the wanted field, and others by chance."""
    known = (*VARIATIONS, *TOGETHER)
    fitting = [one for one in known if set(one) <= family.fields and family.takes(one)]
    around = [one for one in fitting if wanted in one]  # with what the wanted field needs
    config = dict(_pick(rng, around)) if around else {}
    for _ in range(rng.choice(3, p=(0.4, 0.4, 0.2)) if fitting else 0):
        config = _pick(rng, fitting) | config
    chances = {wanted: 0.5 if around else 1.0}
    for name in sorted(family.fields - {"trained_betas"}):
        if rng.random() < chances.get(name, CHANCE):
            config[name] = _value(rng, family, name)
    if betas := config.get("trained_betas"):
        config |= {"trained_betas": list(betas), "num_train_timesteps": len(betas)}
    return config


def _value(rng: np.random.Generator, family: Family, name: str) -> Any:
    """A value of a field's type."""
    if name == "num_train_timesteps":
        return int(_pick(rng, LENGTHS))
    kinds = _members(get_type_hints(family.cls)[name])
    if kinds == [NoneType] or (NoneType in kinds and rng.random() < 0.3):
        return None
    kind = next(one for one in kinds if one is not NoneType)
    if get_origin(kind) is Literal:
        return _pick(rng, [v for v in get_args(kind) if v not in OURS_ALONE.get(name, ())])
    if kind is bool:
        return bool(rng.integers(2))
    default = next(f.default for f in dataclasses.fields(family.cls) if f.name == name)
    known = (*_numbers(name), default)
    if not any(isinstance(one, int | float) for one in known):  # a list of steps, or a function
        return _pick(rng, known)
    number = _number(rng, known)
    return round(number) if kind is int else _short(number)


def _members(hint: Any) -> list[Any]:
    """The members of a union."""
    united = get_args(hint) and get_origin(hint) is not Literal
    return [kind for one in get_args(hint) for kind in _members(one)] if united else [hint]


@functools.cache
def _numbers(name: str) -> tuple[Any, ...]:
    """What VARIATIONS and MORE have for a field."""
    return (*MORE.get(name, ()), *(one[name] for one in VARIATIONS if name in one))


def _number(rng: np.random.Generator, known: tuple[Any, ...]) -> float:
    """One of these numbers, or one between the smallest and the largest of them."""
    finite = sorted({v for v in known if isinstance(v, int | float) and math.isfinite(v)})
    low, high = finite[0], finite[-1]
    if rng.random() < 0.4:
        return _pick(rng, finite)
    if low == high:
        low, high = sorted((0.7 * low, 1.4 * low))
    if low > 0:
        return float(np.exp(rng.uniform(np.log(low), np.log(high))))
    return float(rng.uniform(low, high))


def _short(value: Any) -> Any:
    """A float as it is printed."""
    return float(f"{value:.3g}") if isinstance(value, float) else value


def _pick(rng: np.random.Generator, values: Any) -> Any:
    return values[rng.integers(len(values))]
