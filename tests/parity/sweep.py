"""Random configs and options of every scheduler, run by both libraries in float64.

    python -m tests.parity.sweep --seed 7 --count 3000

draws that many combinations, prints what became of those of each scheduler, and every one that is
not as it should be, and the fields that no comparison had. `--only 7/123/DDIMScheduler`, the name
of a combination, runs that one.
"""

import argparse
import math
import re
import warnings
from collections import Counter
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from diffusers.utils import logging

from tests.parity import lifted
from tests.parity.compare import allowed_in, alpha_bar_of, deviation, ours, table_of, theirs
from tests.parity.drawn import Drawn, draw, options_of
from tests.parity.scheduler_cases import Case
from tests.schedulers.matrix import FAMILIES, Family

COMPARED, BOTH_REFUSE = "compared", "both refuse"
OURS_REFUSES, THEIRS_FAILS = "ours refuses", "diffusers fails"
EXPLAINED = "explained"
KINDS = (COMPARED, BOTH_REFUSE, OURS_REFUSES, THEIRS_FAILS, EXPLAINED)

# What ours refuses by name and diffusers runs; docs/differences.md, "Configs".
REFUSED = (
    "rescale_betas_zero_snr leaves no signal",
    # fields without the one that makes them read
    "flow_shift needs use_flow_sigmas",
    r"sigma_m\w\w needs one of",
    'time_shift_type "linear" needs use_dynamic_shifting',
    "time_shift_type 'linear' is not supported",
    "use_dynamic_shifting is not supported",
    "use_dynamic_shifting needs mu",
    # fields that contradict each other
    "only one of .* may be set",
    "both choose the noise levels",
    'timestep_type "continuous" needs prediction_type "v_prediction"',
    'prediction_type "flow_prediction" needs flow levels',
    "use_flow_sigmas takes prediction_type",
    "shift_terminal and use_.*_sigmas both choose",
    "use_flow_sigmas begins at the data",  # thresholding on the way up
    "steps_offset=.* makes the first of",  # the Euler family goes on
    # randomness that is not of the key
    "noise_sampler_seed is not supported",
)

# What ours runs and diffusers does not; docs/differences.md.
FAILS = (
    "(sigmoid|laplace) is not implemented for",
    "prediction_type not implemented yet: sample",  # ancestral, KDPM2 and the SDE
    "given as sample must be one of",  # PNDM
    r"could not be broadcast together with shapes \(\d,\) \(8,\)",  # PNDM, under four steps
    "given as flow_prediction must be one of",  # of "dpmsolver"
    "`final_sigmas_type` zero is not supported for `algorithm_type` deis",
    "local variable 'x_t'",  # the third order of "sde" forms
    r"size of tensor a \(\d+\) must match",  # singlestep, "dpmsolver" and thresholding
    "DPMSolverMultistepScheduler is not finite",  # a level twice
    "UniPCMultistepScheduler is not finite",  # the step to the data, but with its defaults
    "linspace is not supported",  # on the way up
)


def _explained(case: Case) -> bool:
    """Whether diffusers' run up is known to be another one; docs/differences.md, "Steps"."""
    if case.name != "DPMSolverMultistepInverseScheduler":
        return False
    down = case.config.get("use_flow_sigmas", False)  # from noise to data
    chosen = any(
        case.config.get(f"use_{kind}_sigmas") for kind in ("karras", "exponential", "beta")
    )
    return down or (chosen and case.steps == 1)


class Outcome(NamedTuple):
    """What became of a combination.

    Attributes:
        kind: one of KINDS.
        deviation: of the samples, relative; infinite if the runs differ in form.
        allowed: what is rounding.
        reason: why, in the words of the side that failed.
    """

    kind: str
    deviation: float = 0.0
    allowed: float = math.inf
    reason: str = ""

    @property
    def fault(self) -> str:
        """What is wrong with it, if anything."""
        if self.kind == COMPARED and not self.deviation <= self.allowed:
            return f"{self.deviation:.1e}, of which {self.allowed:.1e} is rounding. {self.reason}"
        known = {OURS_REFUSES: REFUSED, THEIRS_FAILS: FAILS}.get(self.kind, ("",))
        if not any(re.search(one, self.reason) for one in known):
            return f"{self.kind}, for no reason that is known: {self.reason}"
        return ""


def outcome(case: Case, allowed: Callable[[Case, Any, Any], float] = allowed_in) -> Outcome:
    """Runs a case on both sides; what is rounding follows from it, our table and our samples."""
    table, refused = None, ""
    try:
        table = table_of(case)
    except ValueError as error:
        refused = str(error)
    run, failed = None, ""
    with lifted.lifted(), warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        try:
            bar = None if table is None else alpha_bar_of(case)
            run = theirs(case, 1.0 if table is None else float(table.init_scale), alpha_bar=bar)
        except Exception as error:  # whatever it is: diffusers does not run this
            failed = f"{type(error).__name__}: {error}"
    if run is not None and not all(np.isfinite(sample).all() for sample in run.samples):
        failed = f"{case.name} is not finite"
    if table is None:
        return Outcome(BOTH_REFUSE if failed else OURS_REFUSES, reason=refused)
    if run is None or failed:
        return Outcome(THEIRS_FAILS, reason=failed)
    if _explained(case):
        return Outcome(EXPLAINED)
    samples = ours(case, table)
    rounding = allowed(case, table, samples)
    try:
        return Outcome(COMPARED, deviation(case, table, samples, run), rounding)
    except AssertionError as error:
        return Outcome(COMPARED, math.inf, rounding, " ".join(str(error).split()))


# The command.


def _reasons(found: list[Outcome]) -> Counter[str]:
    """How often which of REFUSED and FAILS."""
    known = [r for r in (*REFUSED, *FAILS) for one in found if re.search(r, one.reason)]
    return Counter(known)


def never(family: Family, compared: list[Drawn]) -> list[str]:
    """The fields and options that no combination changes."""
    plain = family.plain.scheduler.config
    changed = {k for one in compared for k, v in one.case.config.items() if v != plain[k]}
    called = {k for one in compared for k in one.case.call}
    return sorted({*family.fields, *options_of(family)} - changed - called)


def report(seed: int, count: int) -> None:
    print(f"{'':32s}", *(f"{kind:>16s}" for kind in KINDS), f"{'worst':>9s}{'of allowed':>12s}")
    each, totals, bad = -(-count // len(FAMILIES)), Counter[str](), list[str]()
    for family in FAMILIES:
        ran: list[tuple[Drawn, Outcome]] = []
        for index in range(each):
            one = draw(family, seed, index)
            ran.append((one, outcome(one.case)))
        found = [of for _, of in ran]
        kinds = Counter(of.kind for of in found)
        worst = max(of.deviation for of in found)
        share = max(of.deviation / of.allowed for of in found)
        counts = (f"{kinds[kind]:16d}" for kind in KINDS)
        print(f"{family.cls.__name__:32s}", *counts, f"{worst:9.1e}{share:12.2g}", flush=True)
        for kind in (OURS_REFUSES, THEIRS_FAILS):
            for reason, times in _reasons([of for of in found if of.kind == kind]).items():
                print(f"    {times:4d} {kind}: {reason}")
        compared = [one for one, of in ran if of.kind == COMPARED]
        if rest := never(family, compared):
            print(f"    never compared: {', '.join(rest)}")
        bad += [f"{one}: {of.fault}" for one, of in ran if of.fault]
        totals += kinds
    print(f"{'all':32s}", *(f"{totals[kind]:16d}" for kind in KINDS))
    print(*bad, f"{len(bad)} that should not be", sep="\n")


def main() -> None:
    parser = argparse.ArgumentParser(description="Random parity of schedulers with diffusers.")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--count", type=int, default=3000)
    parser.add_argument("--only", default="", help="the name of a combination: 7/123/DDIMScheduler")
    options = parser.parse_args()
    logging.set_verbosity_error()
    if not options.only:
        report(options.seed, options.count)
        return
    seed, index, name = options.only.split("/")
    family = next(one for one in FAMILIES if one.cls.__name__ == name)
    one = draw(family, int(seed), int(index))
    print(one.case, outcome(one.case), sep="\n")


if __name__ == "__main__":
    main()
