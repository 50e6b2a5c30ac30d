"""How often do pictures have what their prompts ask for?

    python -m examples.avatars.measure avatars.npz run

The prompts name a hair, a skin and a clothing color that no training picture has together. Writes
`results.json`, `results.md` and `nearest.png` beside this file: the share of pictures with the
colors, glasses and hat that were asked for, beside that of drawn pictures, and of the same pictures
under the prompts of others, which is chance; how far the pictures as a set are from drawn ones, by
the classifier of features.py; and how far they are from training pictures.
"""

import argparse
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Array

import ddpm_jax as dj
from benchmarks import report
from examples.avatars import draw, features, sets
from examples.avatars.captions import full_caption, held_out_people
from examples.avatars.judge import Judge, agreement
from examples.avatars.loop import in_parts
from examples.avatars.people import Person

HERE = Path(__file__).parent
SCALES = (1.0, 2.0, 3.0, 5.0)
LEAST = {"hair": 0.9, "skin": 0.9, "clothing": 0.9} | dict.fromkeys(
    ("glasses", "glasses, if any", "hat", "hat, if any"), 0.85
)
"""What is wanted of each trait."""
STEPS, CELLS, SHOWN, AT_ONCE = 50, 256, 12, 100
FAR = 40
"""Levels of 255 by which a cell of the 16x16 differs, in some channel, to count as different."""


def main(args: Sequence[str] | None = None) -> None:
    """Writes the results."""
    parser = argparse.ArgumentParser(description="Measures the text-to-image model of the avatars.")
    parser.add_argument("data", type=Path, help="what draw.py wrote")
    parser.add_argument("model", help='the folder of a trained model, or a name such as "avatars"')
    parser.add_argument("--num", type=int, default=500, help="prompts (default 500)")
    parser.add_argument("--tried", type=int, default=100, help="other prompts, to choose the scale")
    parser.add_argument("--out", type=Path, default=HERE, help="folder of the results")
    given = parser.parse_args(args)
    path = given.data.with_name(features.NAME)
    for file, command in ((given.data, "draw"), (path, "features")):
        if not file.is_file():
            parser.error(f"{file} is not there: run python -m examples.avatars.{command}")
    if given.num <= features.HIDDEN or given.tried < 8:
        parser.error(
            f"--num must be above {features.HIDDEN}, the number of features, and --tried 8 or more"
        )
    result, nearest = measured(
        dj.DiffusionPipeline.from_pretrained(given.model),
        features.features(path),
        np.load(given.data)["image"],
        given.num,
        given.tried,
    )
    result["features"]["accuracy"] = features.accuracy_of(path)
    result["model"] = given.model
    report.write(given.out / "results.json", result, markdown(result))
    dj.make_grid(nearest / 255.0, columns=4).save(given.out / "nearest.png")
    print(markdown(result), end="")


def measured(
    pipe: Any, network: dj.FeatureNetwork, training: np.ndarray, num: int, tried: int
) -> tuple[dict[str, Any], np.ndarray]:
    """The results, and pictures each with the three training pictures that are nearest to it."""
    rng = np.random.default_rng(7)
    judge = Judge([draw.person_to_train_on(rng) for _ in range(3000)], rng)
    tries, everyone = held_out_people(rng, tried), held_out_people(rng, 2 * num)
    rng.shuffle(everyone)  # what is found last is rarer
    people, others = everyone[:num], draw.pictures(everyone[num:], rng)
    real, again = draw.pictures(tries, rng), draw.pictures(tries, rng)
    compared = partial(sets.compared, network, others=others)
    scales, sets_by_scale = _by_scale(pipe, judge, tries, partial(compared, same=real))
    sets_by_scale[sets.DRAWN] = compared(again, same=real)
    best = max(scales, key=lambda scale: sum(scales[scale].values()))
    began = time.perf_counter()
    images = _painted(pipe, people, best, jax.random.key(0))
    seconds = time.perf_counter() - began
    drawn, again = draw.pictures(people, rng), draw.pictures(people, rng)
    read = judge.read(images, people)
    shuffled = [people[place] for place in rng.permutation(num)]
    apart, near = distances(images, training)
    result = {
        "prompts": num,
        "tried": tried,
        "steps": STEPS,
        "scales": {str(scale): shares for scale, shares in scales.items()},
        "scale": best,
        "generated": agreement(read, people),
        "chance": agreement(read, shuffled),
        "drawn": agreement(judge.read(drawn, people), people),
        "features": {
            "sha256": network.weights,
            "dims": network.dims,
            "rank": sets.rank(network, drawn),
        },
        "sets": {
            "generated": compared(images, same=drawn),
            sets.DRAWN: compared(again, same=drawn),
        },
        "sets_by_scale": sets_by_scale,
        "cells_from_training": _spread(apart),
        "cells_from_training_drawn": _spread(distances(drawn, training)[0]),
        "seconds_per_picture": round(seconds / num, 3),
        "machine": report.machine(),
        "taken": time.strftime("%Y-%m-%d", time.gmtime()),
    }
    closest = np.argsort(apart)[:SHOWN]
    return result, np.stack([images[closest], *training[near[closest].T]], 1).reshape(
        -1, *images.shape[1:]
    )


def _by_scale(
    pipe: Any, judge: Judge, people: Sequence[Person], compared: Callable[..., dict[str, float]]
) -> tuple[dict[float, dict[str, float]], dict[str, dict[str, float]]]:
    """For each guidance scale, what is as asked for, and how far the pictures are as a set."""
    scales, sets_by_scale = {}, {}
    for scale in SCALES:
        images = _painted(pipe, people, scale, jax.random.key(1))
        scales[scale] = agreement(judge.read(images, people), people)
        sets_by_scale[str(scale)] = compared(images)
    return scales, sets_by_scale


def distances(images: np.ndarray, training: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How many of the 256 cells differ from the nearest training picture, (n,), and the places of
    the three nearest ones by squared distance, (n, 3)."""
    small, known = (_cells(one) for one in (images, training))
    norms = np.square(known).sum(1)
    near = np.concatenate(
        [
            np.argpartition(norms[None] - 2 * small[part] @ known.T, 3, axis=1)[:, :3]
            for part in in_parts(len(small), 50)
        ]
    )
    change = np.abs(small[:, None] - known[near]).reshape(len(small), 3, CELLS, 3).max(-1)
    apart = (change > FAR / 127.5).sum(-1)
    order = apart.argsort(1)
    return np.take_along_axis(apart, order, 1)[:, 0], np.take_along_axis(near, order, 1)


def _painted(pipe: Any, people: Sequence[Person], scale: float, key: Array) -> np.ndarray:
    """Pictures of the captions that say all."""
    captions = [full_caption(person) for person in people]
    parts = [
        pipe(
            captions[part],
            jax.random.fold_in(key, part.start),
            num_inference_steps=STEPS,
            guidance_scale=scale,
            output_type="np",
            progress=False,
        ).images
        for part in in_parts(len(captions), AT_ONCE)
    ]
    return dj.to_uint8(np.concatenate(parts))


def _cells(images: np.ndarray) -> np.ndarray:
    """(n, 768) floats: each cell of the 16x16 once."""
    means = images.reshape(len(images), 16, 2, 16, 2, 3).mean((2, 4), dtype=np.float32)
    return means.reshape(len(images), -1) / 127.5


def _spread(values: np.ndarray) -> dict[str, float]:
    return {"least": int(values.min()), "median": float(np.median(values))}


def markdown(result: Mapping[str, Any]) -> str:
    """The results as people read them."""
    columns, machine = ("generated", "drawn", "chance"), result["machine"]
    rows = [
        (trait, *(f"{result[one][trait]:.1%}" for one in columns), f"at least {least:.0%}")
        for trait, least in LEAST.items()
    ]
    scales = [
        (scale, *(f"{shares[trait]:.1%}" for trait in LEAST), sets.distance(result, scale))
        for scale, shares in result["scales"].items()
    ]
    near, real = result["cells_from_training"], result["cells_from_training_drawn"]
    met = all(result["generated"][trait] >= least for trait, least in LEAST.items())
    lines = [
        "# Avatars: do pictures have what their prompts ask for?",
        "",
        f"{result['prompts']} prompts whose hair, skin and clothing colors no training picture has",
        f"together; model `{result['model']}`, DDIM, {result['steps']} steps, guidance scale",
        f"{result['scale']:g}.",
        "",
        report.table(("as asked for", *columns, "wanted"), rows),
        "",
        f'{"All" if met else "NOT all"} criteria are met. "drawn": what is read in pictures that',
        'DiceBear drew of the same people. "chance": the same pictures under others\' prompts.',
        "",
        f"By guidance scale, on {result['tried']} other prompts:",
        "",
        report.table(("scale", *LEAST, "Frechet distance"), scales),
        "",
        "The Frechet distance is from drawn pictures of the same people, and explained below.",
        f"Other drawn pictures of them have {sets.distance(result, sets.DRAWN)}. Of so few it is",
        "larger than of more: compare within this table only.",
        "",
        *sets.lines(result),
        f"None is a copy: of a picture's {CELLS} cells at least {near['least']} differ from the",
        f"nearest training picture, and {near['median']:g} in the median. Where DiceBear drew the",
        f"same people, at least {real['least']} differ, and {real['median']:g} in the median.",
        f"[nearest.png](nearest.png) shows the {SHOWN} nearest pictures, each before the three",
        "training pictures nearest to it.",
        "",
        f"{result['seconds_per_picture']} s for a picture, {AT_ONCE} at once, on {machine['cpu']},",
        f"{machine['cores']} cores that did other work too; jax {machine['versions']['jax']};",
        f"{result['taken']}.",
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
