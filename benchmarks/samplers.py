"""How close every sampler comes to the real digits: `python -m benchmarks.samplers`.

Each draws images of one model with 4, 5, 6, 8, 10, ... evaluations of the network. Measured are the
Frechet distance between features of the images and of all real digits (the hidden layer that
`ddpm_jax.evaluation.digits` trains), the mean squared difference from a long run of the same
starting noise, and the seconds of a run. OUT.json is written after every measurement, and a
measurement that is there is not taken again: an interrupted run continues.
"""

import json
import sys
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

import ddpm_jax as dj
from benchmarks import report
from ddpm_jax.cli.fingerprint import fingerprint
from ddpm_jax.evaluation.digits import Judge, frechet_distance, real_digits
from ddpm_jax.hub.files import read_json
from ddpm_jax.schedulers import BY_NAME

BATCH = 250
REFERENCE = ("ddim", 1000)
"""The long run whose images the others are compared with."""
LEARNED = "learned"


class Run(NamedTuple):
    """One sampler with a number of evaluations."""

    sampler: str
    evaluations: int
    table: dj.Table


def tables(model: str, samplers: Sequence[str], evaluations: Sequence[int]) -> Iterator[Run]:
    """The runs with exactly these numbers of evaluations, where a sampler has them."""
    config = dj.DDPMScheduler.from_pretrained(model).config
    for count in evaluations:
        for name in samplers:
            table = _learned(model, count) if name == LEARNED else _table(config, name, count)
            if table is not None:
                yield Run(name, count, table)


def _learned(model: str, evaluations: int) -> dj.Table | None:
    try:
        return dj.learned_table(model, evaluations)
    except ValueError:
        return None


def _table(config: Mapping[str, Any], name: str, evaluations: int) -> dj.Table | None:
    """The table of a scheduler with so many rows, over a grid from the last timestep, or None."""
    cls = BY_NAME[name]
    chosen = hasattr(cls, "timestep_spacing") and "timestep_spacing" not in cls.unread
    spaced = {"timestep_spacing": "trailing"} if chosen else {}
    for steps in range(evaluations, 0, -1):
        try:
            table = cls.from_config(config, **spaced).table(steps)
        except ValueError:
            continue
        if len(table) <= evaluations:
            return table if len(table) == evaluations else None
    return None


class Samples:
    """Draws the images of one model, from one set of keys."""

    def __init__(self, model: str, images: int, seed: int):
        pipe: Any = dj.DDPMPipeline.from_pretrained(model)
        self.unet, self.params = pipe.unet, pipe.params
        self.keys = dj.sample_keys(jax.random.key(seed), images)

    def draw(self, table: dj.Table) -> tuple[np.ndarray, float]:
        """Images (N, 8, 8, 1) in [0, 1], and the seconds of a batch without compilation."""
        parts: list[np.ndarray] = []
        seconds: list[float] = []
        for begin in range(0, len(self.keys), BATCH):
            keys = self.keys[begin : begin + BATCH]
            began = time.perf_counter()
            x_T = dj.prior(table, keys, shape=(8, 8, 1))
            parts.append(np.asarray(dj.sample(self.unet.denoise, self.params, table, x_T, keys)))
            seconds.append(time.perf_counter() - began)
        images = np.clip(np.concatenate(parts) / 2 + 0.5, 0, 1)
        return images, float(np.median(seconds[1:] or seconds))


def measure(given: Namespace) -> dict[str, Any]:
    """All runs that the file does not have yet."""
    document = _document(given)
    samples, judge = Samples(given.model, given.images, given.seed), Judge(real_digits())
    real = judge.features(judge.digits.images)
    config = dj.DDPMScheduler.from_pretrained(given.model).config
    long = _table(config, given.reference, given.reference_steps)
    assert long is not None
    wanted: np.ndarray | None = None
    runs = list(tables(given.model, given.samplers, given.evaluations))
    for done, (sampler, evaluations, table) in enumerate(runs):
        results = document["results"].setdefault(sampler, {})
        if str(evaluations) in results:
            continue
        if wanted is None:
            report.say(f"{given.reference} with {len(long)} evaluations, for comparison")
            wanted, _ = samples.draw(long)
        images, seconds = samples.draw(table)
        features = judge.features(images.reshape(len(images), -1).astype(np.float64))
        results[str(evaluations)] = {
            "distance": frechet_distance(features, real),
            "apart": float(np.square(images - wanted).mean()),
            "seconds": seconds,
            "registers": table.num_registers,
        }
        given.out.parent.mkdir(parents=True, exist_ok=True)
        report.write(given.out, document, markdown(document))
        distance = results[str(evaluations)]["distance"]
        report.say(f"{done + 1} of {len(runs)}: {sampler}, {evaluations}: {distance:.3f}")
    return document


def _document(given: Namespace) -> dict[str, Any]:
    """The file's content, or a new one."""
    source = {
        "model": given.model,
        "weights": fingerprint(given.model, None, None)["weights"],
        "images": given.images,
        "seed": given.seed,
        "reference": f"{given.reference}, {given.reference_steps} steps",
    }
    if given.out.exists():
        found = read_json(given.out)
        if found.get("source") != source:
            raise ValueError(f"{given.out} holds results of another run: {found.get('source')}")
        return found
    return {"source": source, "machine": report.machine(), "results": {}}


def markdown(document: Mapping[str, Any]) -> str:
    """One row a sampler, one column a number of evaluations."""
    results, source = document["results"], document["source"]
    counts = sorted({int(count) for found in results.values() for count in found})
    first = counts[: len(counts) // 2 + 1]

    def key(name: str) -> float:
        return min(
            (results[name][str(c)]["distance"] for c in first if str(c) in results[name]),
            default=np.inf,
        )

    rows = [
        (name, *(_cell(results[name].get(str(count))) for count in counts))
        for name in sorted(results, key=key)
    ]
    text = report.table(("sampler", *map(str, counts)), rows)
    return (
        f"# Frechet distance to the real digits, by evaluations\n\n{source['images']} images of "
        f"{source['model']}, seed {source['seed']}, on {document['machine']['cpu']}. Smaller is "
        f"closer.\n\n{text}\n"
    )


def _cell(found: Mapping[str, Any] | None) -> str:
    return "" if found is None else f"{found['distance']:.3f}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command."""
    parser = ArgumentParser(prog="python -m benchmarks.samplers", description=__doc__)
    add, count = parser.add_argument, report.count
    add("--model", default="digits", help="bundled name, folder or hub id (digits)")
    add("--images", type=count, default=10_000, help="images of each run (10000)")
    add("--samplers", nargs="+", default=[LEARNED, *BY_NAME], help="default: all")
    add("--evaluations", nargs="+", type=count, default=[4, 5, 6, 8, 10], help="(4 5 6 8 10)")
    add("--reference", default=REFERENCE[0], help="the long run (ddim)")
    add("--reference-steps", type=count, default=REFERENCE[1], help="of the long run (1000)")
    add("--seed", type=int, default=0, help="of the images (0)")
    add("--out", type=Path, default=report.RESULTS / "samplers.json", help="the JSON file")
    given = parser.parse_args(arguments)
    try:
        document = measure(given)
    except (ValueError, OSError, ImportError) as error:
        parser.error(str(error))
    print(json.dumps(document["source"]), markdown(document), sep="\n", end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
