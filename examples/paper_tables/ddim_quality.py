"""FID by steps and eta of Table 1 of the DDIM paper (Song et al. 2021, arXiv:2010.02502), the
columns of CIFAR-10: `python -m examples.paper_tables.ddim_quality`.

The steps are quadratic (appendix D.2), and all timesteps where there are 1000. As in the authors'
code x0 is not clipped with any eta. It is clipped in the row "sigma^" (--etas hat), which is DDPM
with the larger variance 1 - alpha_bar_t / alpha_bar_s between neighbors s < t of the grid. 50,000
images against the training set.
"""

from collections.abc import Sequence

from benchmarks import report
from examples.paper_tables.common import (
    Line,
    Results,
    checked,
    finish,
    options,
    quality,
    statistics,
)

HAT = "hat"
STEPS = (10, 20, 50, 100, 1000)
PAPER = {
    "0.0": ("13.36", "6.84", "4.67", "4.16", "4.04"),
    "0.2": ("14.04", "7.11", "4.77", "4.25", "4.09"),
    "0.5": ("16.66", "8.35", "5.25", "4.46", "4.29"),
    "1.0": ("41.07", "18.36", "8.01", "5.78", "4.73"),
    HAT: ("367.43", "133.37", "32.72", "9.99", "3.17"),
}
"""By eta, the FIDs at STEPS."""
QUICK_STEPS = (3, 5)


def scheduler(eta: str, steps: int) -> list[object]:
    """The options of `ddpm-jax sample` for a cell of the table."""
    spacing = "leading" if steps == STEPS[-1] else "quadratic"
    common = ["--steps", steps, "--set", f"timestep_spacing={spacing}"]
    if eta == HAT:
        return ["--scheduler", "ddpm", *common, "variance_type=fixed_large", "clip_sample=true"]
    own = ["clip_sample=false", "set_alpha_to_one=true"]
    return ["--scheduler", "ddim", "--eta", eta, *common, *own]


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command."""
    parser = options("ddim_quality", __doc__, 50_000)
    parser.add_argument("--etas", nargs="+", choices=tuple(PAPER), default=tuple(PAPER))
    parser.add_argument(
        "--steps", type=report.count, nargs="+", choices=STEPS, help="columns; default: all"
    )
    given = parser.parse_args(arguments)
    if given.quick and given.steps:
        parser.error(f"--quick takes {QUICK_STEPS} steps: leave out --steps")
    run = checked(parser, given, "train")
    results, against = Results(parser, run), statistics(run)
    lines = []
    for steps in QUICK_STEPS if run.quick else given.steps or STEPS:
        for eta in given.etas:
            name = f"eta-{eta}-steps-{steps}"
            cell = scheduler(eta, steps)
            found = results.row(name, lambda n=name, c=cell: quality(run, against, n, c, "fid"))
            place = QUICK_STEPS.index(steps) if run.quick else STEPS.index(steps)
            what = "sigma^" if eta == HAT else f"eta {eta}"
            lines.append(Line(f"{what}, {steps} steps", found["fid"], PAPER[eta][place]))
    finish(run, "DDIM, Table 1, CIFAR-10: FID", lines)


if __name__ == "__main__":
    main()
