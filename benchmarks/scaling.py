"""What many images cost on several devices: `python -m benchmarks.scaling`.

Draws batches of the bundled digits as `ddpm-jax sample` does, on 1, 2, 4 and 8 devices, and writes
them as PNG files and as .npz shards. A batch has as many images whatever the number of devices. It
also takes the time that a restart needs to check PNG files, beside that of decoding them.

On a CPU the devices are emulated and share the cores, so more of them cannot be faster: what they
take beyond one device is the overhead of splitting. On N real devices, with b images on each in t
seconds, and w seconds to write an image in the thread beside,

    (1)  images/s = min(N b / t, 1 / w)

since nothing moves between devices while a table runs. What moves before and after is small:
docs/scaling.md.
"""

import contextlib
import io
import json
import os
import tempfile
from argparse import ArgumentParser, Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from PIL import Image

import ddpm_jax as dj
from benchmarks import report, rounds
from ddpm_jax.cli.devices import over
from ddpm_jax.cli.drawing import Drawing
from ddpm_jax.cli.image_files import SampledImage
from ddpm_jax.cli.output import Folder, no_more
from ddpm_jax.cli.shards import Shards
from ddpm_jax.cli.share import ALL

COUNTS = (1, 2, 4, 8)
SIDES = (32, 256)
SETTINGS = {"model": "digits", "seed": "0", "scheduler": json.dumps({**dj.DDIMScheduler().config})}
"""Of the files that are checked: about as much text as those of a run have."""
EMULATED = f"--xla_force_host_platform_device_count={COUNTS[-1]}"

NOTES = """\
Batch: seconds from keys to pixels on the host, the median over rounds. Over one device: ratio of
seconds within a round, median and quartiles; on a CPU, where devices are emulated and share the
cores, what is above 1 is the overhead of splitting. Writing: seconds to write a batch, in a thread
beside the computation. At a restart: files in the page cache, on one core. To the host: bytes of
pixels, all that leaves the devices."""


class Drawn:
    """Batches on so many devices."""

    def __init__(self, count: int, given: Namespace):
        devices = over(jax.devices()[:count])
        unet, params = dj.UNet2DModel.from_pretrained("digits", sharding=devices.whole)
        scheduler = dj.DDIMScheduler.from_pretrained("digits")
        self.params, self.batch = params, given.batch
        self.drawing = Drawing(
            pipe=dj.DDPMPipeline(unet=unet, params=params, scheduler=scheduler),
            table=scheduler.table(given.steps),
            seed=0,
            options=lambda _indices: {},
            batch_size=given.batch,
            every=None,
            split=devices.split,
        )

    def run(self, units: int) -> list[SampledImage]:
        """Draws so many batches; the last one."""
        with contextlib.redirect_stderr(io.StringIO()):  # the bar
            return list(self.drawing.draw(range(units * self.batch)))[-1]


class Written:
    """Batches as files in a folder of their own."""

    def __init__(self, folder: Path, kind: str, batch: Sequence[SampledImage]):
        self.batch = batch
        if kind == "png":
            self.target: Folder | Shards = Folder(folder, {}, strips=False)
        else:
            self.target = Shards(folder, {}, size=len(batch), each=no_more, classes=(), share=ALL)
            self.target.missing(len(batch))

    def run(self, units: int) -> None:
        for _ in range(units):
            self.target.save(self.batch)


class Checked:
    """PNG files of a size, as a restart finds them; smooth pictures with a little noise."""

    def __init__(self, folder: Path, side: int, count: int):
        random = np.random.default_rng(0)
        coarse = Image.fromarray(random.integers(0, 256, (side // 4, side // 4, 3), np.uint8))
        smooth = np.asarray(coarse.resize((side, side), Image.Resampling.BICUBIC))
        noisy = (smooth // 2 + random.integers(0, 4, smooth.shape, np.uint8) for _ in range(count))
        self.folder, self.count = folder, count
        target = Folder(folder, SETTINGS, strips=False)
        target.save([SampledImage(i, pixels, ()) for i, pixels in enumerate(noisy)])

    def check(self, units: int) -> None:
        for _ in range(units):
            assert not Folder(self.folder, SETTINGS, strips=False).missing(self.count)

    def decode(self, units: int) -> None:
        for _ in range(units):
            for file in self.folder.iterdir():
                with Image.open(file) as image:
                    image.load()


def checks(folder: Path, given: Namespace) -> dict[str, rounds.Run]:
    runs: dict[str, rounds.Run] = {}
    for side in SIDES:
        one = Checked(folder / str(side), side, given.files)
        runs |= {f"check {side}": one.check, f"decode {side}": one.decode}
    return runs


def measured(given: Namespace) -> dict[str, Any]:
    counts = [count for count in COUNTS if count <= jax.device_count()]
    drawn = {str(count): Drawn(count, given) for count in counts}
    batch = [one._replace(number=i) for i, one in enumerate(drawn["1"].run(1))]
    with tempfile.TemporaryDirectory() as folder:
        files = {kind: Written(Path(folder) / kind, kind, batch) for kind in ("png", "npz")}
        runs: dict[str, rounds.Run] = {name: one.run for name, one in {**drawn, **files}.items()}
        runs |= checks(Path(folder), given)
        for run in runs.values():
            run(1)  # compiles
        taken = rounds.take(runs, 1, given.rounds)
    leaves = jax.tree.leaves(drawn["1"].params)
    return report.begun(given) | {
        "batch": given.batch,
        "steps": given.steps,
        "files": given.files,
        "seconds_of": {name: [took[name] for took in taken] for name in runs},
        "over_one": {name: rounds.ratio(taken, name, "1") for name in drawn},
        "pixel_bytes": batch[0].pixels.nbytes,
        "param_bytes": sum(leaf.nbytes for leaf in leaves),
    }


def median(result: Mapping[str, Any], name: str) -> float:
    return rounds.spread(result["seconds_of"][name]).median


def writing_limit(batch: float, written: float) -> float:
    """Devices up to which (1) is bounded by computing: batches of one device's seconds each."""
    return batch / written


def markdown(result: Mapping[str, Any]) -> str:
    size = result["batch"]
    cells = (
        [name, f"{median(result, name):.3g}", f"{size / median(result, name):.4g}"]
        + [str(rounds.Spread(*result["over_one"][name]))]
        for name in result["over_one"]
    )
    columns = ("devices", "batch, s", "images/s", "over one device")
    parts = [report.head(f"Digits, {size} at once, {result['steps']} steps", result)]
    parts += ["## Drawing", report.table(columns, cells)]
    one = median(result, "1")
    writing = (
        [kind, f"{(took := median(result, kind)):.3g}", f"{size / took:.4g}"]
        + [f"{writing_limit(one, took):.3g}"]
        for kind in ("png", "npz")
    )
    columns = ("files", "writing a batch, s", "images/s", "devices that it keeps up with")
    parts += ["## Writing", report.table(columns, writing)]
    checking = (
        [f"{side}x{side}"]
        + [f"{1e6 * seconds / result['files']:.0f}" for seconds in pair]
        + [f"{50_000 * pair[0] / result['files']:.3g}"]
        for side in SIDES
        for pair in [[median(result, f"{what} {side}") for what in ("check", "decode")]]
    )
    columns = ("pixels", "check, us a file", "decode, us a file", "check of 50,000, s")
    parts += ["## PNG files at a restart", report.table(columns, checking)]
    moved = f"{result['pixel_bytes']} bytes an image to the host"
    parts += [f"{moved}; {result['param_bytes']:,} bytes of params to each device, once.", NOTES]
    return "\n\n".join(parts) + "\n"


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command."""
    parser = ArgumentParser(prog="python -m benchmarks.scaling", description=__doc__)
    parser.add_argument("--batch", type=report.count, default=512, help="images at once (512)")
    parser.add_argument("--steps", type=report.count, default=20, help="of DDIM (20)")
    parser.add_argument("--files", type=report.count, default=500, help="to check (500)")
    parser.add_argument("--rounds", type=report.count, default=9)
    parser.add_argument("--fast", action="store_true", help="seconds: does it all run?")
    parser.add_argument("--out", type=Path, help="the JSON file, and .md beside it")
    given = parser.parse_args(arguments)
    # Before jax starts. It is ignored where there is an accelerator.
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {EMULATED}".strip()
    if given.fast:
        given.batch, given.steps, given.rounds, given.files = 16, 2, 2, 10
    elif given.out is None:
        given.out = report.RESULTS / f"scaling-{report.slug()}.json"
    result = measured(given)
    report.finish(given.out, result, markdown(result))


if __name__ == "__main__":
    main()
