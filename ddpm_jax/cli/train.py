"""`ddpm-jax train`: train a model on images, or resume a run."""

import argparse
import dataclasses
import signal
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import tyro

from ddpm_jax.cli.common import DESCRIBED, OptionalName, OptionError, counted, option_errors
from ddpm_jax.training.run.settings import Settings

if TYPE_CHECKING:
    from ddpm_jax.training.run.plan import Plan

SHORT = {"--data": "--data.name", "--profile": "--loop.profile"}
"""Options with a shorter name."""
Preset = Literal["tiny", "photos", "cifar10", "celebahq256"]
Flag = tyro.conf.FlagCreatePairsOff[bool]


@dataclass(frozen=True, kw_only=True)
class Train(Settings):
    """Train a model on images. The result is a folder that `ddpm-jax sample` and diffusers load.

    The option --data is short for --data.name, and --profile for --loop.profile. The defaults shown
    by --help are those of the preset, file, model or earlier run that is given beside it.
    """

    EXAMPLES: ClassVar[str] = """\
  ddpm-jax train --data digits --out digits-run
  ddpm-jax train --out digits-run --resume
  ddpm-jax train --data photos/ --preset photos --out photos-run
  ddpm-jax train --data sketches/ --from google/ddpm-cifar10-32 --loop.steps 20000 --out run2
  ddpm-jax train --config digits-run/settings.json --ema.decay 0.9999 --out other-run"""

    out: Path
    """The folder of the run: settings, checkpoints, log, samples, curve and result."""

    preset: Annotated[Preset | None, DESCRIBED] = None
    """The initial settings. For a CPU: "tiny" (the default, made for the digits) and "photos"
    (of anything, at 32x32). For GPUs: the DDPM paper's "cifar10" and "celebahq256"."""

    config: Annotated[Path | None, tyro.conf.arg(metavar="FILE", help_behavior_hint="")] = None
    """A settings.json with the initial settings, instead of a preset."""

    from_: Annotated[
        str | None, tyro.conf.arg(name="from", metavar="MODEL", help_behavior_hint="")
    ] = None
    """A model to fine-tune: a hub id, a folder or a bundled name. Its network and forward process
    are the defaults."""

    revision: OptionalName = None
    """Branch, tag or commit of that model on the hub."""

    variant: OptionalName = None
    """Which of its weight files, such as non_ema."""

    resume: Flag = False
    """Resume the run in --out from its last checkpoint, or start it if it has no checkpoint."""

    cluster: Flag = False
    """Run on all processes of a cluster that jax detects (Slurm, Open MPI, Kubernetes, Cloud TPU).
    On other clusters set JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID instead."""

    no_cache: Flag = False
    """Do not store compiled programs in the user's cache folder."""

    @classmethod
    def prepare(cls, argv: Sequence[str]) -> tuple[list[str], "Train"]:
        """The arguments with short options in full, and the defaults that they override."""
        argv = [_written_out(word) for word in argv]
        start = _start_options(argv)
        if start.revision and start.base is None:
            raise OptionError("--revision needs the model that --from names: pass both")
        settings = _start(start)
        groups = {f.name: getattr(settings, f.name) for f in dataclasses.fields(Settings)}
        return argv, cls(out=Path(start.out) if start.out else tyro.MISSING, **groups)

    def run(self) -> None:
        """Train, and print the path of the result."""
        from ddpm_jax.cli import cache
        from ddpm_jax.images import MODES
        from ddpm_jax.training.processes import start_processes
        from ddpm_jax.training.run.run import train_checked

        start_processes(detect=self.cluster)
        plan = self._plan()
        if not self.no_cache:
            cache.use(cache.folder())
        _say(plan)
        outcome = train_checked(plan, resume=self.resume)
        if outcome.stopped is not None:
            message = (
                f"stopped by {outcome.stopped.name} after {outcome.step} of "
                f"{self.loop.steps} updates: continue with --resume"
            )
            if outcome.stopped is signal.SIGINT:
                raise KeyboardInterrupt(message)
            print(message)
            return
        # DDPM forgives a short training, see `Sampler`
        hint = f"ddpm-jax sample --model {self.out} --scheduler ddpm"
        if (channels := plan.source.shape[-1]) not in MODES:
            hint = f"with {channels} channels, use a pipeline in Python with output_type='np'"
        print(
            f"{counted(outcome.step, 'update')}, "
            f"{counted(outcome.compilations, 'compilation')} of the step; "
            f"the model is {self.out}: {hint}"
        )

    def _plan(self) -> "Plan":
        from ddpm_jax.training.run.finetune import load_base
        from ddpm_jax.training.run.plan import check_folder, check_settings, make_plan, open_images

        settings = Settings(**{f.name: getattr(self, f.name) for f in dataclasses.fields(Settings)})
        with option_errors():
            check_settings(settings)
        check_folder(self.out, settings, resume=self.resume)
        base = None
        if self.from_ is not None:
            base = load_base(self.from_, revision=self.revision, variant=self.variant)
        source = open_images(settings, base)  # data that cannot be read is no wrong option
        with option_errors():
            return make_plan(settings, self.out, base, source)


def _written_out(word: str) -> str:
    name, equals, value = word.partition("=")
    return SHORT.get(name, name) + equals + value


def _start_options(argv: Sequence[str]) -> argparse.Namespace:
    """The options that determine the defaults of all others."""
    # tyro needs the defaults before it parses, and supports presets only as subcommands. So these
    # few options are parsed twice: here for the defaults, and by tyro for help and errors.
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    for name in ("preset", "config", "revision", "out"):
        parser.add_argument(f"--{name}", nargs="?")
    parser.add_argument("--from", dest="base", nargs="?")
    parser.add_argument("--data.name", dest="data", nargs="?")
    parser.add_argument("--resume", action="store_true")
    return parser.parse_known_args(argv)[0]


def _start(start: argparse.Namespace) -> Settings:
    """The settings that options override: those of an earlier run, a file or a preset."""
    from ddpm_jax.training.run.finetune import base_settings
    from ddpm_jax.training.run.plan import SETTINGS_NAME
    from ddpm_jax.training.run.presets import PRESETS

    if start.preset and start.config:
        raise OptionError("--preset and --config both set the initial settings: pass only one")
    earlier = Path(start.out or "") / SETTINGS_NAME
    if start.resume and start.out and earlier.exists() and not (start.preset or start.config):
        return Settings.load(earlier)
    images = start.data or start.config or start.preset  # each says what to train on
    if start.resume and start.out and not (earlier.exists() or images):
        raise OptionError(
            f"--resume: there is no run in {start.out}; to begin one there, pass --data"
        )
    # tyro reports an unknown preset.
    settings = PRESETS.get(start.preset or "tiny", PRESETS["tiny"])
    if start.config:
        settings = Settings.load(start.config)
    if start.base is None:
        return settings
    model, diffusion = base_settings(start.base, start.revision)
    return replace(settings, model=model, diffusion=diffusion or settings.diffusion)


def _say(plan: "Plan") -> None:
    """Prints the data set and the model before training starts."""
    import jax

    from ddpm_jax.hub import class_names

    count = sum(leaf.size for leaf in jax.tree.leaves(plan.model.shapes()))
    height, width, channels = plan.source.shape
    kinds = plan.source.num_classes
    classes = "" if kinds is None else f" in {counted(kinds, 'class')}"
    if plan.source.classes:
        classes += f" ({class_names.in_words(dict(enumerate(plan.source.classes)))})"
    elif plan.source.labels is not None and (found := len(set(plan.source.labels))) < (kinds or 0):
        classes += f", {found:,} of which have images"
    print(
        f"{counted(len(plan.source), 'image')} of {height}x{width}x{channels}{classes}, "
        f"a model of {count:,} params, "
        f"{counted(jax.device_count(), f'{jax.devices()[0].platform} device')}"
    )
