"""Kills `ddpm-jax train` at random moments until runs are through, and compares their bits.

    PYTHONPATH=. python tests/training/kill_and_resume.py FOLDER [--kills 20] [--updates 400]

One run is left alone. Others are started again and again with --resume, and killed (SIGKILL) after
a random time each, until there have been enough kills. Moments are drawn from the whole life of a
process: start, compilation, updates, checkpoints being written, samples. A run that comes to its
end must have the weights of the one left alone. Prints one line a kill, with the checkpoints that
were there.
"""

import argparse
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

OPTIONS = """
--data digits --loop.batch-size 8 --loop.save-every 10 --loop.sample-every 100
--loop.sample-num 4 --loop.sample-steps 3 --loop.log-every 10
--model.down-block-types DownBlock2D --model.up-block-types UpBlock2D --model.block-out-channels 8
--model.mid-block-type None --model.norm-num-groups 4 --model.layers-per-block 1
--model.dropout 0.1 --data.crop random --data.resolution 8 --data.flip
""".split()

# Python leaves Ctrl-C ignored in what a shell started in the background.
PROGRAM = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
from ddpm_jax.cli import main
sys.exit(main(sys.argv[1:]))
"""


def command(out: Path, updates: int = 400) -> list[str]:
    train = [sys.executable, "-c", PROGRAM, "train", "--out", str(out), "--resume", *OPTIONS]
    return [*train, "--loop.steps", str(updates)]


def steps(out: Path) -> list[int]:
    return sorted(int(path.name) for path in (out / "checkpoints").glob("*") if path.name.isdigit())


def weights(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (out / "unet").glob("*.safetensors")}


def run(out: Path, updates: int, seconds: float | None = None) -> bool:
    """Whether the process came to its end before it was killed, after some seconds."""
    with subprocess.Popen(
        command(out, updates),
        env={**os.environ, "XDG_CACHE_HOME": str(out.parent / "cache")},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    ) as child:
        try:
            _, errors = child.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            child.kill()
            return False
    if child.returncode:
        raise RuntimeError(errors.decode())
    return True


def main(arguments: Sequence[str] | None = None) -> int:
    """0 if all is equal."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--updates", type=int, default=400, help="of a run")
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args(arguments)
    whole, updates = asked.folder / "whole", asked.updates
    run(whole, updates)  # compiles
    shutil.rmtree(whole)
    began = time.perf_counter()
    run(whole, updates)
    longest = time.perf_counter() - began
    draw, kills, runs = random.Random(asked.seed), 0, 0
    while kills < asked.kills:
        runs += 1
        killed = asked.folder / f"killed-{runs}"
        while kills < asked.kills and not run(killed, updates, seconds := draw.uniform(0, longest)):
            kills += 1
            print(f"{kills}: after {seconds:.1f} of {longest:.1f} s, checkpoints {steps(killed)}")
        run(killed, updates)  # to its end, if it is not there
        if weights(whole) != weights(killed):
            print(f"the weights of {killed} are DIFFERENT from those of {whole}")
            return 1
    print(f"{kills} kills in {runs} runs: all weights are equal to the bit")
    return 0


if __name__ == "__main__":
    sys.exit(main())
