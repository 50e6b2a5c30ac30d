"""How good generated digits are: `python -m benchmarks.digits_quality`.

Draws pictures from a model with ddpm_jax, or reads them from a file, and lets classifiers of the
real digits judge them as benchmarks/digits_judge.py says. Prints a table, writes it and the figures
to OUT.md and OUT.json, and ends with 0 if the pictures pass on all three counts.
"""

import argparse
import importlib.metadata
import json
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from tqdm import tqdm

import ddpm_jax as dj
from benchmarks import machine, store
from benchmarks.command import RESULTS, count
from benchmarks.digits_judge import (
    LEAST_SHARE,
    MOST_DISTANCE,
    MOST_SHARE,
    SURE,
    Judge,
    real_digits,
)
from ddpm_jax.cli.fingerprint import fingerprint
from ddpm_jax.schedulers import BY_NAME

OUT = RESULTS / "digits_quality"


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; 0 if all criteria are met."""
    parser = _parser()
    given = parser.parse_args(arguments)
    try:
        judge = Judge(real_digits(), cuts=given.cuts)
        result = _measure(given, judge)
    except (ValueError, OSError) as error:
        parser.error(str(error))
    text = markdown(result)
    print(text)
    store.write(given.out.with_suffix(".json"), json.dumps(result, indent=1) + "\n")
    store.write(given.out.with_suffix(".md"), text)
    return int(not passed(result["verdict"]))


def passed(verdict: Mapping[str, Mapping[str, Any]]) -> bool:
    """Whether all criteria are met."""
    return all(answer["passed"] for answer in verdict.values())


def draw(model: str, scheduler: str, steps: int, num: int, seed: int, batch: int) -> np.ndarray:
    """Pictures (num, 8, 8, 1) in [0, 1]: those that `ddpm-jax sample` gives for this seed."""
    pipe = dj.DiffusionPipeline.from_pretrained(model)
    pipe.scheduler = BY_NAME[scheduler].from_config(pipe.scheduler.config)
    keys = dj.sample_keys(jax.random.key(seed), -(-num // batch) * batch)  # whole batches
    parts = [
        pipe(
            keys[start : start + batch],
            num_inference_steps=steps,
            output_type="np",
            progress=False,
        ).images
        for start in tqdm(range(0, len(keys), batch), desc="drawing", unit="batch")
    ]
    return np.concatenate(parts)[:num]


def _measure(given: argparse.Namespace, judge: Judge) -> dict[str, Any]:
    """What was judged, how it came about, and the verdict."""
    began = time.perf_counter()
    if given.images is None:
        names = ("model", "scheduler", "steps", "num", "seed")
        source = {name: getattr(given, name) for name in names}
        images = draw(**source, batch=given.batch_size)
        source |= {"weights": fingerprint(given.model, None, None)["weights"]}
    else:
        images = np.load(given.images, allow_pickle=False)
        source = {"images": str(given.images), "num": len(images)}
    return {
        "source": source,
        "cuts": judge.cuts,
        "seconds": round(time.perf_counter() - began, 1),
        "verdict": judge.verdict(images),
        "code": machine.code(),
        "machine": machine.describe()
        | {"scikit-learn": importlib.metadata.version("scikit-learn")},
    }


def markdown(result: Mapping[str, Any]) -> str:
    """The result as a table."""
    source, verdict = result["source"], result["verdict"]
    where = ", ".join(f"{name} {value}" for name, value in source.items())
    lines = ["# Digits, judged by classifiers of the real ones", "", where, ""]
    lines += ["| | pictures | real digits | wanted | |", "| --- | --- | --- | --- | --- |"]
    lines += [f"| {' | '.join(row)} |" for row in _rows(verdict)]
    end = "All criteria are met." if passed(verdict) else "NOT all criteria are met."
    return "\n".join([*lines, "", end]) + "\n"


def _rows(verdict: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    readable, diverse, alike = verdict["readable"], verdict["diverse"], verdict["alike"]
    yield (
        f"read with a probability above {SURE}",
        f"{100 * readable['pictures']:.1f} %",
        f"{100 * readable['held_out_real']:.1f} %",
        "at least as many",
        _told(readable),
    )
    yield (
        "rarest and most frequent class",
        _range(diverse["shares"]),
        _range(diverse["real"]),
        f"{100 * LEAST_SHARE:.0f} % to {100 * MOST_SHARE:.0f} %",
        _told(diverse),
    )
    yield (
        f"Frechet distance to halves of the real digits ({alike['size']} pictures each)",
        f"{alike['to_halves']:.3f}, {alike['ratio']:.2f} times",
        f"{alike['between_halves']:.3f}",
        f"at most {MOST_DISTANCE} times",
        _told(alike),
    )


def _range(shares: Sequence[float]) -> str:
    return f"{100 * min(shares):.1f} %, {100 * max(shares):.1f} %"


def _told(answer: Mapping[str, Any]) -> str:
    return "met" if answer["passed"] else "MISSED"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.digits_quality", description=__doc__
    )
    add = parser.add_argument
    add("--model", default="digits", help="bundled name, folder or hub id (digits)")
    add("--num", type=count, default=1000, help="pictures to draw (1000)")
    add("--seed", type=int, default=0, help="of the pictures (0)")
    add("--scheduler", choices=tuple(BY_NAME), default="ddpm", help="(ddpm)")
    add("--steps", type=count, default=100, help="of the scheduler (100)")
    add("--batch-size", type=count, default=100, help="pictures drawn at once (100)")
    add("--images", type=Path, help="an .npy file of pictures (N, 8, 8, 1) in [0, 1] to judge")
    add("--cuts", type=count, default=5, help="ways to cut the real digits into halves (5)")
    add("--out", type=Path, default=OUT, help="files to write, without suffix")
    return parser


if __name__ == "__main__":
    sys.exit(main())
