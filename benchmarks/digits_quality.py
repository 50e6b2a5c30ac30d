"""How good generated digits are: `python -m benchmarks.digits_quality`.

Draws images from a model, or reads them from a file, and has `ddpm_jax.evaluation.digits` judge
them. Writes the figures to OUT.json and a table to OUT.md, and ends with 0 if all criteria are met.
"""

import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from tqdm import tqdm

import ddpm_jax as dj
from benchmarks import report
from ddpm_jax.cli.fingerprint import fingerprint
from ddpm_jax.evaluation.digits import (
    LEAST_SHARE,
    MOST_DISTANCE,
    MOST_SHARE,
    SURE,
    Judge,
    passed,
    real_digits,
)
from ddpm_jax.schedulers import BY_NAME


def draw(model: str, scheduler: str, steps: int, num: int, seed: int, batch: int) -> np.ndarray:
    """Images (num, 8, 8, 1) in [0, 1]: those that `ddpm-jax sample` gives for this seed."""
    pipe = dj.DiffusionPipeline.from_pretrained(model)
    pipe.scheduler = BY_NAME[scheduler].from_config(pipe.scheduler.config)
    keys = dj.sample_keys(jax.random.key(seed), -(-num // batch) * batch)  # whole batches
    parts = [
        pipe(
            keys[start : start + batch], num_inference_steps=steps, output_type="np", progress=False
        ).images
        for start in tqdm(range(0, len(keys), batch), desc="drawing", unit="batch")
    ]
    return np.concatenate(parts)[:num]


def measured(given: Namespace) -> dict[str, Any]:
    """Where the images come from, and the verdict."""
    judge = Judge(real_digits(), cuts=given.cuts)
    if given.images is None:
        source = {name: getattr(given, name) for name in ("model", "scheduler", "steps", "num")}
        source["seed"] = given.seed
        images = draw(**source, batch=given.batch_size)
        source["weights"] = fingerprint(given.model, None, None)["weights"]
    else:
        images = np.load(given.images, allow_pickle=False)
        source = {"images": str(given.images), "num": len(images)}
    verdict = judge.verdict(images)
    return {"source": source, "cuts": judge.cuts, "verdict": verdict, "machine": report.machine()}


def markdown(result: Mapping[str, Any]) -> str:
    source = ", ".join(f"{name} {value}" for name, value in result["source"].items())
    columns = ("", "generated", "real digits", "wanted", "")
    good = passed(result["verdict"])
    end = "All criteria are met." if good else "NOT all criteria are met."
    text = report.table(columns, _rows(result["verdict"]))
    return f"# Digits, judged by classifiers of the real ones\n\n{source}\n\n{text}\n\n{end}\n"


def _rows(verdict: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    readable, diverse, alike = verdict["readable"], verdict["diverse"], verdict["alike"]
    met = {name: "met" if answer["passed"] else "MISSED" for name, answer in verdict.items()}
    yield (
        f"read with a probability above {SURE}",
        f"{100 * readable['generated']:.1f} %",
        f"{100 * readable['held_out_real']:.1f} %",
        "at least as many",
        met["readable"],
    )
    yield (
        "rarest and most frequent class",
        _ends(diverse["shares"]),
        _ends(diverse["real"]),
        f"{100 * LEAST_SHARE:.0f} % to {100 * MOST_SHARE:.0f} %",
        met["diverse"],
    )
    yield (
        f"Frechet distance to halves of the real digits ({alike['size']} images each)",
        f"{alike['to_halves']:.3f}, {alike['ratio']:.2f} times",
        f"{alike['between_halves']:.3f}",
        f"at most {MOST_DISTANCE} times",
        met["alike"],
    )


def _ends(shares: Sequence[float]) -> str:
    return f"{100 * min(shares):.1f} %, {100 * max(shares):.1f} %"


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; 0 if all criteria are met."""
    parser = ArgumentParser(prog="python -m benchmarks.digits_quality", description=__doc__)
    add, count = parser.add_argument, report.count
    add("--model", default="digits", help="bundled name, folder or hub id (digits)")
    add("--num", type=count, default=1000, help="images to draw (1000)")
    add("--seed", type=int, default=0, help="of the images (0)")
    add("--scheduler", choices=tuple(BY_NAME), default="ddpm", help="(ddpm)")
    add("--steps", type=count, default=100, help="of the scheduler (100)")
    add("--batch-size", type=count, default=100, help="images drawn at once (100)")
    add("--images", type=Path, help="an .npy file of images (N, 8, 8, 1) in [0, 1] to judge")
    add("--cuts", type=count, default=5, help="ways to cut the real digits into halves (5)")
    add("--out", type=Path, default=report.RESULTS / "digits_quality.json", help="the JSON file")
    given = parser.parse_args(arguments)
    try:
        result = measured(given)
    except (ValueError, OSError, ImportError) as error:
        parser.error(str(error))
    report.finish(given.out, result, markdown(result))
    return int(not passed(result["verdict"]))


if __name__ == "__main__":
    sys.exit(main())
