"""How close every sampler comes to the real digits: `python -m benchmarks.samplers`.

Each draws images of one model with 4, 5, 6, 8, 10, ... evaluations of the network. Measured are the
Frechet distance between features of the images and of all real digits (the hidden layer of
`ddpm_jax.evaluation.digits_classifier`), and, on the first 1,000 of them, the mean squared
difference from a long run of the same starting noise. OUT.json is written after every measurement,
and a measurement that is there is not taken again: an interrupted run continues, within a long
measurement too. `--time` adds the seconds of a batch to what is measured; take it on an idle
machine.

A sampler is a scheduler's name, with timesteps from the last one on ("trailing"), or NAME+GRID for
a grid by name; "learned" are the model's learned tables.
"""

import json
import sys
import time
import zlib
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

import ddpm_jax as dj
from benchmarks import report
from ddpm_jax.cli.fingerprint import fingerprint
from ddpm_jax.evaluation.digits import Judge, distance, real_digits
from ddpm_jax.hub.files import read_json, replacing
from ddpm_jax.schedulers import BY_NAME

BATCH = 250
COMPARED = 1000
"""Images that are compared with the long run's."""
KEEP_EVERY = 60
"""Seconds between two times that a run's images are written, to go on from."""
ROUNDS = 5
"""Batches of which `--time` takes the median."""
REFERENCE = ("dpm-solver-multistep", 100)
"""The long run whose images the others are compared with. DDIM's would not do: with clip_sample it
drifts the further, the more steps it has."""
SHOWN = ("distance", "apart", "seconds")
LEARNED = "learned"
GRIDS = (
    "dpm-solver-multistep+dmn",
    "uni-pc-multistep+dmn",
    "lms+dmn",
    "dpm-solver-multistep+log-snr",
)
FEW = (4, 5, 6, 8, 10)
ALSO = ("ddim:50", "ddpm:1000")
"""Runs that people know, for comparison."""


class Run(NamedTuple):
    """One sampler with a number of evaluations."""

    sampler: str
    evaluations: int
    table: dj.Table


def tables(
    model: str, samplers: Sequence[str], evaluations: Sequence[int], also: Sequence[str] = ()
) -> Iterator[Run]:
    """The runs with exactly these numbers of evaluations, where a sampler has them."""
    config = dj.DDPMScheduler.from_pretrained(model).config
    wanted = [(name, count) for count in evaluations for name in samplers]
    wanted += [(name, int(count)) for name, _, count in (one.partition(":") for one in also)]
    for name, count in wanted:
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
    name, _, grid = name.partition("+")
    chosen: Any = {"grid": grid} if grid else {}
    for steps in range(evaluations, 0, -1):
        try:
            table = BY_NAME[name].trailing(config).table(steps, **chosen)
        except ValueError:
            continue
        if len(table) <= evaluations:
            return table if len(table) == evaluations else None
    return None


def sum_of(table: dj.Table) -> str:
    """A checksum of a table's numbers: a result is that of one table."""
    code = 0
    for leaf in jax.tree.leaves(table):
        code = zlib.crc32(np.asarray(leaf).tobytes(), code)
    return f"{code:08x}"


class Samples:
    """Draws the images of one model, from one set of keys."""

    def __init__(self, model: str, images: int, seed: int):
        pipe: Any = dj.DDPMPipeline.from_pretrained(model)
        self.unet, self.params = pipe.unet, pipe.params
        self.keys = dj.sample_keys(jax.random.key(seed), images)

    def draw(
        self, table: dj.Table, most: int | None = None, kept: Path | None = None
    ) -> np.ndarray:
        """Images (N, 8, 8, 1) in [0, 1], or the first of them; a file keeps those of a long run."""
        keys = self.keys[:most]
        parts = [np.load(kept)] if kept is not None and kept.exists() else []
        written = time.monotonic()
        for begin in range(sum(map(len, parts)), len(keys), BATCH):
            parts.append(self.batch(table, keys[begin : begin + BATCH]))
            if kept is not None and time.monotonic() - written > KEEP_EVERY:
                with replacing(kept) as partial, partial.open("wb") as file:
                    np.save(file, np.concatenate(parts))
                written = time.monotonic()
        return np.clip(np.concatenate(parts) / 2 + 0.5, 0, 1)

    def batch(self, table: dj.Table, keys: Any) -> np.ndarray:
        """One batch of samples."""
        x_T = dj.prior(table, keys, shape=(8, 8, 1))
        return np.asarray(dj.sample(self.unet.denoise, self.params, table, x_T, keys))

    def seconds(self, table: dj.Table) -> float:
        """The median time of a batch, without compilation."""
        keys, times = self.keys[:BATCH], []
        for _ in range(ROUNDS + 1):
            began = time.perf_counter()
            self.batch(table, keys)
            times.append(time.perf_counter() - began)
        return float(np.median(times[1:]))


def measure(given: Namespace) -> dict[str, Any]:
    """All runs that the file does not have yet."""
    document = _document(given)
    given.out.parent.mkdir(parents=True, exist_ok=True)
    samples, judge = Samples(given.model, given.images, given.seed), Judge(real_digits())
    real = judge.features(judge.digits.images)
    wanted: np.ndarray | None = None
    runs = list(tables(given.model, given.samplers, given.evaluations, given.also))
    for done, (sampler, evaluations, table) in enumerate(runs):
        found = document["results"].setdefault(sampler, {}).setdefault(str(evaluations), {})
        content = sum_of(table)
        kept = _kept(given.out, document["source"], sampler, content)
        if given.time:
            found["seconds"] = samples.seconds(table)
        elif found.get("table") == content:
            continue
        else:
            if wanted is None:
                wanted = _long_run(given, samples)
            images = samples.draw(table, kept=kept)
            features = judge.features(images.reshape(len(images), -1).astype(np.float64))
            found["distance"] = distance(features, real)
            found["apart"] = float(np.square(images[:COMPARED] - wanted).mean())
            found |= {"registers": table.num_registers, "table": content}
            found["cpu"] = report.machine()["cpu"]
        report.write(given.out, document, markdown(document))
        if not given.time:  # which leaves what an interrupted measurement goes on from
            kept.unlink(missing_ok=True)
        shown = ", ".join(f"{name} {found[name]:.3g}" for name in SHOWN if name in found)
        report.say(f"{done + 1} of {len(runs)}: {sampler}, {evaluations}: {shown}")
    return document


def _long_run(given: Namespace, samples: Samples) -> np.ndarray:
    """The images that the first ones of every run are compared with."""
    config = dj.DDPMScheduler.from_pretrained(given.model).config
    table = _table(config, given.reference, given.reference_steps)
    if table is None:
        raise ValueError(f"{given.reference} has no run of {given.reference_steps} evaluations")
    report.say(f"{given.reference} with {len(table)} evaluations, for comparison")
    return samples.draw(table, COMPARED)


def _kept(out: Path, source: Mapping[str, Any], sampler: str, content: str) -> Path:
    """Where the images of a run are kept until they are measured."""
    code = zlib.crc32(json.dumps(source).encode(), int(content, 16))
    return out.with_name(f"{out.stem}-{sampler}-{code:08x}.npy")


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


def processors(document: Mapping[str, Any]) -> str:
    """What the distances were measured on: the first run's processor, and what others measured."""
    own, others = document["machine"]["cpu"], dict[str, list[str]]()
    for name, found in document["results"].items():
        for cpu in sorted({one.get("cpu", own) for one in found.values()} - {own}):
            others.setdefault(cpu, []).append(name)
    return "; ".join([own, *(f"{', '.join(names)} on {cpu}" for cpu, names in others.items())])


def markdown(document: Mapping[str, Any]) -> str:
    """One row a sampler, one column a number of evaluations."""
    results, source = document["results"], document["source"]
    counts = sorted({int(count) for found in results.values() for count in found})

    def key(name: str) -> float:
        found = results[name].items()
        few = [one["distance"] for count, one in found if int(count) in FEW and "distance" in one]
        return min(few, default=np.inf)

    rows = [
        (name, *(_cell(results[name].get(str(count))) for count in counts))
        for name in sorted(results, key=key)
    ]
    text = report.table(("sampler", *map(str, counts)), rows)
    return (
        f"# Frechet distance to the real digits, by evaluations\n\n{source['images']} images of "
        f"{source['model']}, seed {source['seed']}, on {processors(document)}. Smaller is "
        f"closer.\n\n{text}\n"
    )


def _cell(found: Mapping[str, Any] | None) -> str:
    return f"{found['distance']:.3f}" if found and "distance" in found else ""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command."""
    parser = ArgumentParser(prog="python -m benchmarks.samplers", description=__doc__)
    add, count = parser.add_argument, report.count
    add("--model", default="digits", help="bundled name, folder or hub id (digits)")
    add("--images", type=count, default=10_000, help="images of each run (10000)")
    add("--samplers", nargs="+", default=[LEARNED, *GRIDS, *BY_NAME], help="default: all")
    add("--evaluations", nargs="+", type=count, default=list(FEW), help="(4 5 6 8 10)")
    add("--also", nargs="*", default=list(ALSO), help="NAME:EVALUATIONS (ddim:50 ddpm:1000)")
    add("--time", action="store_true", help="measure seconds instead of distances")
    add("--reference", default=REFERENCE[0], help="the long run (dpm-solver-multistep)")
    add("--reference-steps", type=count, default=REFERENCE[1], help="of the long run (100)")
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
