"""FID and Inception score of Tables 1 and 2 of the DDPM paper (Ho et al. 2020, arXiv:2006.11239),
in the row "L_simple": `python -m examples.paper_tables.ddpm_quality`.

1000 steps with the larger variance beta_t (fixed_large) and a clipped x0, 50,000 images, against
the 50,000 images of the training set.
"""

from collections.abc import Sequence

from examples.paper_tables.common import (
    Line,
    Results,
    checked,
    finish,
    options,
    quality,
    statistics,
)

FID, SCORE = "3.17", "9.46"
STEPS, QUICK_STEPS = 1000, 5


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command."""
    parser = options("ddpm_quality", __doc__, 50_000)
    run = checked(parser, parser.parse_args(arguments), "train")
    results = Results(parser, run)
    against = statistics(run)
    steps = QUICK_STEPS if run.quick else STEPS
    scheduler = ("--scheduler", "ddpm", "--steps", steps)
    changed = ("--set", "variance_type=fixed_large", "clip_sample=true", "timestep_spacing=leading")
    found = results.row(
        "ddpm", lambda: quality(run, against, "ddpm", (*scheduler, *changed), "fid,is")
    )
    lines = [Line("FID", found["fid"], FID), Line("Inception score", found["is"], SCORE)]
    finish(
        run,
        "DDPM, Tables 1 and 2, L_simple",
        lines,
        f"{steps} steps, fixed_large. The score's spread over ten parts is "
        f"{found['is_std']:.2f}{'' if run.quick else '; the paper has 0.11'}.",
    )


if __name__ == "__main__":
    main()
