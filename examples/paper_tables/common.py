"""What the scripts share: their options, the rows of a table, and the table beside the paper's.

Every script has one folder, by default `results/NAME`. `results.json` there has the settings and
all rows that are done; it is written after each row, and a run that is repeated reads it. A folder
of other settings is refused.
"""

import json
import shlex
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from tqdm import tqdm

import ddpm_jax as dj
from benchmarks import report
from ddpm_jax import cli
from ddpm_jax.cli.evaluated import open_images
from ddpm_jax.cli.fingerprint import fingerprint
from ddpm_jax.evaluation.features import FeatureNetwork
from ddpm_jax.evaluation.sets import ImageSet
from ddpm_jax.hub.files import file_sum, write_json
from ddpm_jax.training.data import Data

DIGITS = "digits"
QUICK = 64
"""Images of --quick."""
FEATURES_AT_ONCE = 50
RESIZE = "torch-fidelity"
"""The papers' FIDs are by TTUR's program, where the original graph of Inception-v3 resizes."""

NO_MODEL = """\
The paper's numbers are those of the averaged weights: download \
ema_diffusion_cifar10_model-790000.ckpt (pesser/pytorch_diffusion says where from), and run
  ddpm-jax convert ema_diffusion_cifar10_model-790000.ckpt cifar10 --sample-size 32 \
--variance-type fixed_large"""
NO_DATA = """\
Download https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz, and run
  python -m examples.paper_tables.prepare cifar-10-binary.tar.gz {}"""


@dataclass(frozen=True)
class Run:
    """What a script works on.

    Attributes:
        model: a bundled name, a folder or a hub id.
        part: "train" or "test": the part of the data that it compares with.
        data: that part: a file, or "digits".
        num: number of images.
        out: folder of the results and of all that is kept.
        weights: the file of Inception-v3; None: downloaded once.
        batch: images at once; None: what the commands choose.
        quick: the bundled digits in place of CIFAR-10.
        settings: all that decides the numbers.
    """

    model: str
    part: str
    data: str
    num: int
    out: Path
    weights: str | None
    batch: int | None
    quick: bool
    settings: dict[str, Any]

    def images(self, num: int | None = None) -> ImageSet:
        """The real images: the first `num`, or all."""
        return open_images(Data(name=self.data), num)


def options(name: str, about: str | None, num: int) -> ArgumentParser:
    """The options of all scripts; `num` is the paper's number of images."""
    parser = ArgumentParser(prog=f"python -m examples.paper_tables.{name}", description=about)
    add = parser.add_argument
    add("--model", help="a folder or a hub id (cifar10, a folder that `convert` made)")
    add("--data", type=Path, help="folder of train.npz and test.npz (cifar10-data)")
    add("--num", type=report.count, help=f"images (the paper's {num}; with --quick {QUICK})")
    add("--out", type=Path, help=f"folder of the results (results/{name})")
    add("--weights", help="the file of Inception-v3; downloaded once if left out")
    add("--batch-size", type=report.count, help="images at once")
    add("--quick", action="store_true", help="all of it in a minute, on the bundled digits")
    parser.set_defaults(name=name, papers=num)
    return parser


def checked(parser: ArgumentParser, given: Namespace, part: str) -> Run:
    """What to work on. Exits with a message if the model or the data are not there.

    Args:
        parser: reports what is wrong.
        given: its options.
        part: "train" or "test".
    """
    if given.quick:
        for name in ("model", "data", "weights"):
            if getattr(given, name) is not None:
                parser.error(f"--quick takes the bundled digits: leave out --{name}")
    model = DIGITS if given.quick else given.model or "cifar10"
    folder = given.data or Path("cifar10-data")
    data = DIGITS if given.quick else str(folder / f"{part}.npz")
    num = given.num or (QUICK if given.quick else given.papers)
    settings = {"model": model, "num": num, "quick": given.quick}
    try:
        settings |= fingerprint(model, None, None)
    except (OSError, ValueError) as error:
        parser.error(f"{error}\n{NO_MODEL}")
    if not given.quick:
        if not Path(data).is_file():
            parser.error(f"{data} is not there. {NO_DATA.format(folder)}")
        settings["data_sha256"] = file_sum(Path(data))
    out = given.out or Path("results") / given.name
    batch = given.batch_size
    run = Run(model, part, data, num, out, given.weights, batch, given.quick, settings)
    there = run.images().count
    if part == "test" and num > there:
        parser.error(f"{data} has {there} images, not {num}: pass a smaller --num")
    return run


class Results:
    """The rows that are done, in `results.json`. Exits if those there are of other settings.

    Args:
        parser: reports what is wrong.
        run: whose they are.
    """

    def __init__(self, parser: ArgumentParser, run: Run):
        self.path = run.out / "results.json"
        self.found: dict[str, Any] = {"settings": run.settings, "rows": {}}
        if self.path.exists():
            kept = json.loads(self.path.read_text())
            old, new = kept["settings"], run.settings
            other = sorted(name for name in old | new if old.get(name) != new.get(name))
            if other:
                parser.error(
                    f"{self.path} is of another {', '.join(other)}: pass another --out, or delete "
                    f"{run.out}"
                )
            self.found = kept
        run.out.mkdir(parents=True, exist_ok=True)
        self._save()

    def row(self, name: str, compute: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """The numbers of a row, computed unless they are there."""
        rows = self.found["rows"]
        if name not in rows:
            rows[name] = compute()
            self._save()
        return rows[name]

    def _save(self) -> None:
        write_json(self.path, self.found)


# Images and their distances.


def command(*words: object) -> None:
    """Runs `ddpm-jax` and shows the line. Exits with its code if it fails."""
    line = [str(word) for word in words]
    print("$ ddpm-jax", shlex.join(line), flush=True)
    if code := cli.main(line):
        raise SystemExit(code)


def statistics(run: Run) -> Path:
    """The statistics of the real images, taken once. Missing weights end the run here, before any
    image is drawn."""
    network = _features(run)
    path = run.out / "statistics.npz"
    if not path.exists():
        images = run.images()
        total = -(-images.count // FEATURES_AT_ONCE)
        bar = tqdm(images.batches(FEATURES_AT_ONCE), "real images", total, unit="batch")
        found = dj.collect_features(network, (one for one in bar), ["statistics"]).statistics
        assert found is not None
        found.save(path)
    return path


def _features(run: Run) -> FeatureNetwork:
    if run.quick:
        return dj.digits_features()
    try:
        return dj.inception_features(run.weights, resize=RESIZE)
    except (OSError, ValueError) as error:
        raise SystemExit(
            f"{error}\nThe FID needs Inception-v3: pass --weights "
            "pt_inception-2015-12-05-6726825d.pth, which pytorch-fid publishes"
        ) from error


def quality(
    run: Run, against: Path, name: str, scheduler: Sequence[object], metrics: str
) -> dict[str, float]:
    """Draws images with a scheduler, into a folder that is continued, and measures them."""
    folder = run.out / name
    size = [] if run.batch is None else ["--batch-size", run.batch]
    drawn = ["--model", run.model, "--num", run.num, "--format", "npz", "--out", folder]
    command("sample", *drawn, *scheduler, *size)
    weights = [] if run.weights is None else ["--weights", run.weights]
    inception = ["--features", "inception", "--resize", RESIZE, *weights]
    features = ["--features", DIGITS] if run.quick else inception
    record = run.out / f"{name}.json"
    compared = ["--against", against] if "fid" in metrics else []
    command("evaluate", folder, *compared, "--metrics", metrics, *features, "--out", record)
    found = json.loads(record.read_text())["metrics"]
    return {key: value for numbers in found.values() for key, value in numbers.items()}


# The table.


class Line(NamedTuple):
    """A number beside the paper's.

    Attributes:
        what: it is.
        ours: the number.
        paper: the paper's, as it is printed; ours gets as many decimals.
    """

    what: str
    ours: float
    paper: str


def finish(run: Run, title: str, lines: Iterable[Line], *notes: str) -> None:
    """Writes `table.md` into the folder, and prints it. --quick has no paper beside it."""
    columns = ["", "ours"] if run.quick else ["", "ours", "paper", "difference"]
    machine = report.machine()
    about = (
        f"{run.num} images; model {run.model}, weights {run.settings['weights'][:12]}; "
        f"{', '.join(machine['gpus']) or machine['cpu']}; "
        f"jax {machine['versions']['jax']}; {time.strftime('%Y-%m-%d', time.gmtime())}."
    )
    quick = ["--quick: the bundled digits, with few steps; nothing to compare with."]
    parts = [f"# {title}", report.table(columns, (_cells(run, line) for line in lines))]
    text = "\n\n".join([*parts, *notes, about, *(quick if run.quick else [])]) + "\n"
    (run.out / "table.md").write_text(text, encoding="utf-8")
    print(text, end="")


def _cells(run: Run, line: Line) -> list[str]:
    decimals = len(line.paper.partition(".")[2])
    ours = f"{line.ours:.{decimals}f}"
    if run.quick:
        return [line.what, ours]
    apart = f"{line.ours - float(line.paper):+.{decimals}f}"
    return [line.what, ours, line.paper, apart]
