"""Stable Diffusion beside diffusers on torch: `python -m benchmarks.text_to_image`.

The networks have the configs of Stable Diffusion 1.5 and random weights; nothing is downloaded. A
run is the whole pipeline, up to images in NumPy: the text encoder, the loop of DDIM with guidance,
and the decoder. From t(n) of a run of n steps, n evaluations of the UNet, and t(1) follow

    (1)  seconds an image = t(n) / batch
    (2)  evaluations a second = (n - 1) / (t(n) - t(1))

On a GPU all of it is meant to end in four minutes: a library is not timed if fewer of `--minutes`
are left than its preparation took in the case before, and rounds are fewer, down to three.
README.md beside this file says how to read the results.
"""

import math
import statistics
import tempfile
import time
from argparse import Namespace
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np

import ddpm_jax as dj
from benchmarks import contenders, report, rounds
from benchmarks.contenders import OURS
from benchmarks.networks import PIPELINES
from ddpm_jax.models.layers import cudnn
from ddpm_jax.text.tokenizer import BOS, EOS

SCHEDULER = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "clip_sample": False,
    "set_alpha_to_one": False,
    "steps_offset": 1,
}
"""DDIM's, as Stable Diffusion has it."""
PROMPT, GUIDANCE_SCALE = "a photo of an astronaut riding a horse", 7.5

BATCHES = {"cpu": {"sd15-256px": (1,)}, "gpu": {"sd15": (1, 8)}}
PRECISIONS = {"cpu": ("float32",), "gpu": ("bfloat16",)}
MINUTES = {"cpu": math.inf, "gpu": 3.5}
RESERVE = 20.0
"""Seconds of `MINUTES` that are kept for rounds."""

TARGETS, FASTER = {1: 0.45, 8: 0.30}, 1.1
"""On an H100: seconds an image by batch, and the ratio to `torch.compile`."""

PLAIN = "ddpm_jax without cuDNN"

NOTES = """\
An image: seconds of the whole pipeline over the batch, the median over rounds. Evaluations/s: of
the UNet, each with twice the batch for the guidance, and with the loop around them. Ours / theirs:
ratio of rates of the whole pipeline within a round, median and quartiles; above 1 ddpm_jax is
faster. First call: first minus second call, which is compilation of all programs. Difference: the
largest, from our latents and images of three steps, relative to the largest value."""


class WithoutCudnn(dj.UNet2DConditionModel):
    """The network with XLA's attention on every device. Another class: another compiled program."""

    def __call__(self, *args: Any, **options: Any) -> Any:
        with mock.patch.object(cudnn, "applies", return_value=False):
            return super().__call__(*args, **options)


class Ours:
    """Our pipeline; each call has these arguments."""

    def __init__(self, pipe: dj.StableDiffusionPipeline, call: Mapping[str, Any], noise: Any):
        fixed = {"x_T": jnp.asarray(noise), "key": jax.random.key(0), "progress": False}
        self.pipe = partial(pipe, **call, **fixed)

    def run(self, units: int) -> None:
        self.pipe(num_inference_steps=units, output_type="np")

    def outputs(self) -> dict[str, Any]:
        kinds: Any = {"latents": "latent", "images": "np"}
        return {
            name: np.asarray(self.pipe(num_inference_steps=3, output_type=kind)[0], np.float32)
            for name, kind in kinds.items()
        }


def arguments(batch: int) -> dict[str, Any]:
    """Of a call, on both sides."""
    return {"prompt": [PROMPT] * batch, "guidance_scale": GUIDANCE_SCALE}


def tokenizer() -> dj.CLIPTokenizer:
    """Of single letters: what the ids are does not matter, and every row has 77."""
    letters = [chr(code) for code in range(33, 127)]
    tokens = [*letters, *(f"{letter}</w>" for letter in letters), BOS, EOS]
    return dj.CLIPTokenizer.from_vocabulary({token: i for i, token in enumerate(tokens)}, [])


def load(case: report.Case, folder: Path) -> dj.StableDiffusionPipeline:
    """Our pipeline with the weights that torch draws, or without torch with its own random ones."""
    configs, dtype = PIPELINES[case.network].configs, jnp.dtype(case.precision)
    tokenizer().save_pretrained(folder / "tokenizer")
    if contenders.weights("draw_pipeline", configs, SCHEDULER, folder, case.precision) is None:
        return random_pipeline(configs, dtype)
    pipe: Any = dj.StableDiffusionPipeline.from_pretrained(folder, dtype=dtype, param_dtype=dtype)
    return pipe


def random_pipeline(configs: Mapping[str, Any], dtype: Any) -> dj.StableDiffusionPipeline:
    kinds: dict[str, type[dj.Model]] = {
        "unet": dj.UNet2DConditionModel,
        "vae": dj.AutoencoderKL,
        "text_encoder": dj.CLIPTextModel,
    }
    models: dict[str, Any] = {
        name: kind.from_config(configs[name], dtype=dtype, param_dtype=dtype)
        for name, kind in kinds.items()
    }
    params = {name: model.init_params(jax.random.key(0)) for name, model in models.items()}
    scheduler = dj.DDIMScheduler.from_config(SCHEDULER)
    return dj.StableDiffusionPipeline(
        **models, tokenizer=tokenizer(), scheduler=scheduler, params=params
    )


class Clock:
    """The time that is left, and what each contender took to prepare for a case."""

    def __init__(self, minutes: float):
        self.end, self.took = time.monotonic() + 60 * minutes, dict[str, float]()

    def left(self) -> float:
        return self.end - time.monotonic()

    def check(self, name: str) -> None:
        """TimeoutError if the contender would not be ready in time."""
        left, needed = max(self.left(), 0.0), self.took.get(name, 0.0) + RESERVE
        if needed > left:
            raise TimeoutError(f"needs about {needed:.0f} s, {left:.0f} s of --minutes are left")

    def note(self, rows: Mapping[str, Mapping[str, Any]]) -> None:
        """Takes the times of a case; of several, the longest counts."""
        for name, row in rows.items():
            self.took[name] = max(row["prepared"], self.took.get(name, 0.0))

    def checked(self, name: str, make: Callable[[], Any]) -> Any:
        self.check(name)
        return make()


def makers(
    pipe: dj.StableDiffusionPipeline, case: report.Case, folder: Path, given: Namespace
) -> dict[str, Callable[[], Any]]:
    """Of the contenders by name."""
    side = PIPELINES[case.network].size // pipe.vae.factor
    shape = (case.batch, side, side, pipe.vae.latent_channels)
    noise, call = np.random.default_rng(0).standard_normal(shape, np.float32), arguments(case.batch)
    found: dict[str, Callable[[], Any]] = {OURS: lambda: Ours(pipe, call, noise)}
    if given.without_cudnn:
        unet = WithoutCudnn.from_config(pipe.unet.config, dtype=pipe.unet.dtype)
        plain = dj.StableDiffusionPipeline.from_pipe(pipe, unet=unet)
        found[PLAIN] = lambda: Ours(plain, call, noise)
    theirs = contenders.torch_side(
        "TextToImage", case, given.device, folder, call, noise, given.compile_mode
    )
    return found | contenders.torch_makers(theirs, given)


def compared(
    found: Mapping[str, Callable[[], Any]], case: report.Case, given: Namespace, clock: Clock
) -> list[dict[str, Any]]:
    """The contenders' rows."""
    try:
        clock.check(OURS)
    except TimeoutError as error:
        return [{"library": name, "error": contenders.one_line(error)} for name in found]
    allowed = contenders.tolerance(case.precision, given.device)
    checked = {name: partial(clock.checked, name, found[name]) for name in found if name != OURS}
    ready = {OURS: found[OURS], **checked}
    rows, runs = contenders.prepared(ready, lambda _name, _what: allowed)
    clock.note(rows)
    steps = PIPELINES[case.network].steps
    windows: dict[str, rounds.Run] = {}
    for name, run in runs.items():
        windows[name] = run
        windows[one_step(name)] = lambda _units, run=run: run(1)
    taken = rounds.take(windows, steps, given.rounds, left=clock.left)
    for name in runs:
        rows[name] |= figures(taken, name, steps, case.batch)
    return list(rows.values())


def one_step(name: str) -> str:
    """The name of a contender's runs of one step."""
    return f"{name}, one step"


def figures(taken: Sequence[rounds.Round], name: str, steps: int, batch: int) -> dict[str, Any]:
    """What a row says of a contender's runs: equations (1) and (2)."""
    whole, short = ([took[key] for took in taken] for key in (name, one_step(name)))
    loop = statistics.median(whole) - statistics.median(short)
    return {
        "image": statistics.median(whole) / batch,
        "ratio": rounds.ratio(taken, name, OURS),
        "rate": (steps - 1) / loop,
        "steps": steps,
        "seconds": whole,
        "one_step": short,
    }


def markdown(document: Mapping[str, Any]) -> str:
    rows = document["text_to_image"]
    measured = report.contender_table(rows, "evaluations", {"an image, s": "image"})
    parts = [report.head("Text to image: ddpm_jax and diffusers", document), measured]
    if targets := list(_targets(rows)):
        columns = ("batch", "an image, s", "target", "ours / torch.compile", "target")
        parts += ["## Beside the targets, which are for an H100", report.table(columns, targets)]
    return "\n\n".join([*parts, NOTES]) + "\n"


def _targets(rows: Sequence[Mapping[str, Any]]) -> Iterator[list[str]]:
    """A line for each batch of the full pipeline that has a target."""
    for row in rows:
        limit = TARGETS.get(row["batch"])
        if row["network"] != "sd15" or row["library"] != OURS or not limit or "error" in row:
            continue
        ratios = [
            rounds.Spread(*other["ratio"])
            for other in rows
            if other["library"] == "torch.compile"
            and report.case_cells(other) == report.case_cells(row)
            and "ratio" in other
        ]
        versus = str(ratios[0]) if ratios else "not timed"
        yield [
            str(row["batch"]),
            f"{row['image']:.3f}",
            f"at most {limit}",
            versus,
            f"at least {FASTER}",
        ]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = report.options("benchmarks.text_to_image", __doc__, PIPELINES, windows=False)
    add, modes = parser.add_argument, ("default", "reduce-overhead", "max-autotune")
    add("--compile-mode", choices=modes, default="default", help="of torch.compile (default)")
    add("--without-cudnn", action="store_true", help="time ours with XLA's attention too")
    add("--minutes", type=float, help="see above; 3.5 on a GPU, no limit on a CPU")
    given = report.parsed(parser, arguments, "text_to_image")
    clock = Clock(MINUTES[given.device] if given.minutes is None else given.minutes)
    document = report.begun(given) | {"text_to_image": []}
    pipes: dict[Path, dj.StableDiffusionPipeline] = {}
    with tempfile.TemporaryDirectory() as top:
        for case in report.cases(given, BATCHES[given.device], PRECISIONS[given.device]):
            report.say(f"{case}")
            folder = Path(top) / f"{case.network}-{case.precision}"
            pipe = pipes[folder] = pipes.get(folder) or load(case, folder)
            rows = compared(makers(pipe, case, folder, given), case, given, clock)
            taken = [len(row["seconds"]) for row in rows if "seconds" in row]
            document["rounds"] = min([document["rounds"], *taken])
            document["text_to_image"] += [case._asdict() | row for row in rows]
            report.write(given.out, document, markdown(document))
    print(markdown(document), end="")


if __name__ == "__main__":
    main()
