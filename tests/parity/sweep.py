"""Random configs and options of every scheduler, run by ours and by diffusers in float64.

    python -m tests.parity.sweep --seed 7 --count 3000

draws that many combinations, prints what became of those of each scheduler, and every one that is
not as it should be. `--only 7/123/DDIMScheduler`, the name of a combination, runs that one.
"""

import argparse
import dataclasses
import functools
import inspect
import math
import re
import warnings
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from types import NoneType
from typing import Any, Literal, NamedTuple, get_args, get_origin, get_type_hints

import numpy as np

from ddpm_jax.schedulers.base import GridOptions
from tests.parity import lifted
from tests.parity.compare import allowed, alpha_bar_of, deviation, ours, table_of, theirs
from tests.parity.scheduler_cases import Case
from tests.schedulers.matrix import FAMILIES, VARIATIONS, Family

LENGTHS = (40, 250, 1000)
STEPS = (*range(1, 13), *range(1, 13), 13, 37, 61)

# Values of fields that VARIATIONS has no or few numbers of.
MORE: dict[str, tuple[float, ...]] = {
    "num_train_timesteps": LENGTHS,
    "steps_offset": (0, 1, 30),
    "noise_sampler_seed": (0,),
}
# Of fields that choose by name, what diffusers does not have.
OURS_ALONE = {"timestep_spacing": ("quadratic",)}

# Options of `table`: the probability that one is given, and how it is drawn.
Draw = Callable[[np.random.Generator], Any]
OPTIONS: dict[str, tuple[float, Draw]] = {
    "eta": (0.7, lambda rng: _pick(rng, (0.0, 1.0, rng.random()))),
    "use_clipped_model_output": (0.3, lambda rng: bool(rng.integers(2))),
    "s_churn": (0.5, lambda rng: _pick(rng, (0.0, 10 * rng.random(), 60 * rng.random()))),
    "s_tmin": (0.2, lambda rng: rng.random()),
    "s_tmax": (0.2, lambda rng: 1 + 40 * rng.random()),
    "s_noise": (0.3, lambda rng: 1 + 0.1 * rng.random()),
    "order": (0.6, lambda rng: int(rng.integers(1, 6))),
    "mu": (0.2, lambda rng: 0.3 + rng.random()),
    "jump_length": (1.0, lambda rng: int(rng.integers(1, 5))),
    "jump_n_sample": (1.0, lambda rng: int(rng.integers(1, 4))),
}


class Drawn(NamedTuple):
    """One combination, and where it came from."""

    seed: int
    index: int
    case: Case

    def __str__(self) -> str:
        return f"{self.seed}/{self.index}/{self.case.name} {self.case}"


class Outcome(NamedTuple):
    """What became of a combination.

    Attributes:
        kind: "compared"; or who failed: "both refuse", "ours refuses" or "diffusers fails".
        deviation: of the samples, relative; infinite if the runs differ in form.
        reason: why, in the words of the side that failed.
    """

    kind: str
    deviation: float = 0.0
    reason: str = ""


# Drawing.


def _pick(rng: np.random.Generator, values: Any) -> Any:
    return values[rng.integers(len(values))]


@functools.cache
def numbers(name: str) -> tuple[float, ...]:
    """The finite numbers that VARIATIONS and MORE have for a field."""
    found = [one[name] for one in VARIATIONS if name in one]
    found = [v for v in found if isinstance(v, int | float) and not isinstance(v, bool)]
    return tuple(sorted({*MORE.get(name, ()), *(v for v in found if math.isfinite(v))}))


def _number(rng: np.random.Generator, name: str, default: Any) -> float:
    """One of a field's numbers, or one between the smallest and the largest of them."""
    known = numbers(name)
    if isinstance(default, int | float) and math.isfinite(default):
        known = (*known, default)
    if rng.random() < 0.4:
        return _pick(rng, known)
    low, high = min(known), max(known)
    if low == high:
        low, high = sorted((0.7 * low, 1.4 * low))
    if low > 0:
        return float(np.exp(rng.uniform(np.log(low), np.log(high))))
    return float(rng.uniform(low, high))


def value(rng: np.random.Generator, family: Family, name: str) -> Any:
    """A value of a field's type."""
    default = next(f.default for f in dataclasses.fields(family.cls) if f.name == name)
    kinds = _kinds(get_type_hints(family.cls)[name])
    if name == "num_train_timesteps":
        return int(_pick(rng, LENGTHS))
    if NoneType in kinds and rng.random() < 0.3:
        return None
    kinds = [kind for kind in kinds if kind is not NoneType]
    if get_origin(kinds[0]) is Literal:
        values = [v for v in get_args(kinds[0]) if v not in OURS_ALONE.get(name, ())]
        return _pick(rng, values)
    if kinds[0] is bool:
        return bool(rng.integers(2))
    drawn = _number(rng, name, default)
    return round(drawn) if kinds[0] is int else float(f"{drawn:.3g}")


def _kinds(hint: Any) -> list[Any]:
    """The members of a union."""
    united = get_args(hint) and get_origin(hint) is not Literal
    return [kind for one in get_args(hint) for kind in _kinds(one)] if united else [hint]


def _config(rng: np.random.Generator, family: Family) -> dict[str, Any]:
    """Some of VARIATIONS, which fit together, and other fields one by one."""
    fitting = [one for one in VARIATIONS if set(one) <= family.fields and family.takes(one)]
    config: dict[str, Any] = {}
    for _ in range(rng.choice(3, p=(0.3, 0.5, 0.2)) if fitting else 0):
        config |= _pick(rng, fitting)
    for name in sorted(family.fields - {"trained_betas"}):
        if rng.random() < 0.15:
            config[name] = value(rng, family, name)
    if betas := config.get("trained_betas"):
        config |= {"trained_betas": list(betas), "num_train_timesteps": len(betas)}
    return config


def options_of(family: Family) -> list[str]:
    """What a scheduler's `table` takes beyond what every one takes."""
    known = {"self", "num_inference_steps", "grid", *GridOptions.__annotations__}
    return sorted(set(inspect.signature(family.cls.table).parameters) - known)


def draw(family: Family, seed: int, index: int) -> Drawn:
    """The combination of a scheduler that a seed and an index choose."""
    name = family.cls.__name__
    rng = np.random.default_rng([seed, index, zlib.crc32(name.encode())])
    config, call = _config(rng, family), {}
    for option in options_of(family):
        chance, of = OPTIONS[option]
        if rng.random() < chance:
            drawn = of(rng)
            call[option] = float(f"{drawn:.3g}") if isinstance(drawn, float) else drawn
    length = config.get("num_train_timesteps", family.plain.get("num_train_timesteps"))
    steps = int(_pick(rng, [n for n in STEPS if n <= length]))
    return Drawn(seed, index, Case(name, steps, config, call))


def swept() -> list[Family]:
    """The schedulers that diffusers has too."""
    return [family for family in FAMILIES if family.cls.__name__ in lifted.NAMES]


def drawn(seed: int, each: int) -> Iterator[Drawn]:
    for family in swept():
        for index in range(each):
            yield draw(family, seed, index)


# Running.


def outcome(case: Case) -> Outcome:
    """Runs a case on both sides."""
    table, reason = None, ""
    try:
        table = table_of(case)
    except ValueError as error:
        reason = str(error)
    with lifted.lifted(), warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        try:
            bar = None if table is None else alpha_bar_of(case)
            run = theirs(case, 1.0 if table is None else float(table.init_scale), np.float64, bar)
            failed = "" if all(np.isfinite(one).all() for one in run.samples) else "not finite"
        except Exception as error:  # whatever it is, diffusers does not run this
            run, failed = None, f"{type(error).__name__}: {error}"
    if table is None:
        return Outcome("both refuse" if failed else "ours refuses", reason=reason)
    if run is None or failed:
        return Outcome("diffusers fails", reason=failed)
    try:
        return Outcome("compared", deviation(case, table, ours(case, table), run))
    except AssertionError as error:
        return Outcome("compared", math.inf, " ".join(str(error).split()))


# The command.


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--count", type=int, default=3000)
    parser.add_argument("--only", default="")
    options = parser.parse_args()
    if options.only:
        seed, index, name = re.split("/", options.only)
        family = next(one for one in swept() if one.cls.__name__ == name)
        one = draw(family, int(seed), int(index))
        print(one, one.case, outcome(one.case), sep="\n")
        return
    bad: list[str] = []
    kinds = ("compared", "both refuse", "ours refuses", "diffusers fails")
    print(f"{'':34s}" + "".join(f"{kind:>17s}" for kind in kinds) + "    worst")
    reasons: Counter[str] = Counter()
    for family in swept():
        counts: Counter[str] = Counter()
        worst = 0.0
        for index in range(-(-options.count // len(swept()))):
            one = draw(family, options.seed, index)
            found = outcome(one.case)
            counts[found.kind] += 1
            if found.kind == "compared":
                worst = max(worst, found.deviation)
                if not found.deviation <= allowed(one.case):
                    bad.append(f"{found.deviation:.1e} {one} {found.reason[:200]}")
            elif found.kind != "both refuse":
                reasons[f"{family.name}: {found.kind}: {found.reason[:150]}"] += 1
        row = "".join(f"{counts[kind]:17d}" for kind in kinds)
        print(f"{family.cls.__name__:34s}{row}  {worst:.1e}", flush=True)
    print(*bad, sep="\n")
    for reason, times in sorted(reasons.items()):
        print(f"{times:5d} {reason}")


if __name__ == "__main__":
    main()
