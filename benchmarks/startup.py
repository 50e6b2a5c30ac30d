"""How long the command takes to start: `python -m benchmarks.startup`.

Runs `ddpm-jax sample` in new processes: with an empty cache of compiled programs, and again with
the cache that it left. Two evaluations of one image: nearly all of the time is the start.
"""

import os
import subprocess
import sys
import tempfile
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

import ddpm_jax as dj
from benchmarks import report, rounds
from benchmarks.networks import NETWORKS

MODELS = ("digits", "cifar10")
RUN = "import sys; from ddpm_jax.cli import main; sys.exit(main(sys.argv[1:]))"
OFF = "JAX_ENABLE_COMPILATION_CACHE"
"""Set for all benchmarks: here the cache is what is measured."""
FIRST, AGAIN, IMPORTS = "first", "again", "imports"

NOTES = """\
First: seconds of a process with an empty cache of compiled programs. Again: of the next one, which
finds them. Again over first: within a round; median and quartiles. Imports: seconds of
`import ddpm_jax, jax` alone."""


def seconds(*arguments: str, **environment: str) -> float:
    """Of a new process."""
    given = {name: value for name, value in os.environ.items() if name != OFF}
    began = time.perf_counter()
    subprocess.run(
        [sys.executable, *arguments],
        env=given | environment,
        check=True,
        capture_output=True,
    )
    return time.perf_counter() - began


def taken(model: str, folder: Path) -> dict[str, float]:
    """One round."""
    with tempfile.TemporaryDirectory(dir=folder) as cache:
        command = ["sample", "--model", model, "--steps", "2", "--num", "1", "--out"]
        out = str(Path(cache) / "one.png")
        given = {"XDG_CACHE_HOME": cache}
        return {
            FIRST: seconds("-c", RUN, *command, out, **given),
            AGAIN: seconds("-c", RUN, *command, out, **given),
            IMPORTS: seconds("-c", "import ddpm_jax, jax"),
        }


def measured(given: Namespace) -> dict[str, Any]:
    """The figures of each model."""
    rows = []
    with tempfile.TemporaryDirectory() as name:
        for model in given.models:
            place = model
            if model in NETWORKS:
                place = str(Path(name) / model)
                config = NETWORKS[model]
                unet = dj.UNet2DModel(**config)
                params = unet.init_params(jax.random.key(0))
                dj.DDIMPipeline(
                    unet=unet, params=params, scheduler=dj.DDIMScheduler()
                ).save_pretrained(place)
            found = []
            for i in range(given.rounds):
                report.say(f"{model}: round {i + 1} of {given.rounds}")
                found.append(taken(place, Path(name)))
            rows.append(
                {
                    "model": model,
                    "seconds": found,
                    "ratio": rounds.ratio(found, AGAIN, FIRST),
                }
            )
    return {"startup": rows, "rounds": given.rounds, "machine": report.machine()}


def markdown(result: Mapping[str, Any]) -> str:
    def median(row: Mapping[str, Any], what: str) -> str:
        return f"{rounds.spread([one[what] for one in row['seconds']]).median:.1f}"

    lines = [
        [
            row["model"],
            *(median(row, what) for what in (FIRST, AGAIN)),
            str(rounds.Spread(*row["ratio"])),
            median(row, IMPORTS),
        ]
        for row in result["startup"]
    ]
    columns = ("model", "first, s", "again, s", "again over first", "imports, s")
    machine, count = result["machine"], result["rounds"]
    title = (
        f"# Start of the command\n\n{count} rounds; {machine['cpu']}, {machine['cores']} cores, "
        f"jax {machine['versions']['jax']}"
    )
    return "\n\n".join([title, report.table(columns, lines), NOTES]) + "\n"


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command."""
    parser = ArgumentParser(prog="python -m benchmarks.startup", description=__doc__)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--rounds", type=report.count, default=5, help="of both runs (5)")
    parser.add_argument("--out", type=Path, default=report.RESULTS / "startup-cpu.json")
    given = parser.parse_args(arguments)
    result = measured(given)
    report.finish(given.out, result, markdown(result))


if __name__ == "__main__":
    main()
