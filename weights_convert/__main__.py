"""`python -m weights_convert SRC DST`: convert a checkpoint from the command line.

It prints one line for each network, and what the result lacks. Every error is one line on stderr,
with exit status 1, or 2 for wrong arguments.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import fields
from typing import Any, NoReturn, get_args

from weights_convert.convert import Dtype, Kind, convert
from weights_convert.layouts.base import (
    BetaSchedule,
    HeadOrder,
    PredictionType,
    Settings,
    VarianceType,
)
from weights_convert.single_file import LAYOUTS
from weights_convert.single_layout import SingleOptions

_EXAMPLES = """examples:
  python -m weights_convert ddpm-cat-256 ddpm-cat-256-flax
  python -m weights_convert ddpm-cat-256-flax back --to diffusers
  python -m weights_convert diffusion_pytorch_model.bin out --to orbax --overwrite
  python -m weights_convert v1-5-pruned-emaonly.ckpt sd15 --tokenizer clip-vit-large-patch14
  python -m weights_convert ema_diffusion_cifar10_model-790000.ckpt cifar10 --sample-size 32 \\
      --variance-type fixed_large
"""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"error: {message} (see --help)\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="python -m weights_convert",
        description="Convert a diffusers checkpoint to Flax or orbax, or back. Needs no torch.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("src", help="a folder of a component or a pipeline, or a weight file")
    parser.add_argument("dst", help="the folder to create; it appears only when it is complete")
    parser.add_argument(
        "--to",
        choices=get_args(Kind),
        help="default: flax; of a model in one file, diffusers",
    )
    parser.add_argument("--variant", help='which weights of a folder to read, for example "fp16"')
    parser.add_argument("--dtype", choices=get_args(Dtype), help="default: the stored dtype")
    parser.add_argument("--overwrite", action="store_true", help="overwrite a result at DST")
    parser.add_argument("--component", help='only this one of a pipeline, for example "vae"')
    single = parser.add_argument_group("of a model in one file")
    single.add_argument("--ema", action="store_true", help="take the moving average")
    single.add_argument("--layout", choices=LAYOUTS, help="if its tensors do not tell it")
    single.add_argument(
        "--prediction-type", choices=get_args(PredictionType), help="if the file does not say it"
    )
    stable = parser.add_argument_group("of a Stable Diffusion in one file")
    stable.add_argument("--tokenizer", help="a folder to copy the tokenizer from")
    stable.add_argument(
        "--without-depth-estimator", action="store_true", help="leave the depth estimator out"
    )
    _add_settings(parser.add_argument_group("of an unconditional UNet in one file"))
    return parser


def _add_settings(group: Any) -> None:
    """What no tensor tells; the error about missing ones says which a file needs."""
    group.add_argument("--sample-size", type=int, help="width and height of its images")
    group.add_argument("--num-heads", type=int, help="heads of every attention")
    group.add_argument("--num-head-channels", type=int, help="channels of one head")
    group.add_argument("--head-order", choices=get_args(HeadOrder), help="of queries, keys, values")
    group.add_argument("--num-train-timesteps", type=int, help="timesteps of the training")
    group.add_argument("--beta-schedule", choices=get_args(BetaSchedule), help="of the noise")
    group.add_argument("--variance-type", choices=get_args(VarianceType), help="of the sampling")
    group.add_argument(
        "--rescale-timesteps",
        choices=("yes", "no"),
        help="whether the network was told its timesteps as parts of 1000",
    )


def _taken(options: dict[str, Any], kind: type[Settings | SingleOptions]) -> dict[str, Any]:
    """The options that are fields of a class; they are removed from the others."""
    return {one.name: options.pop(one.name) for one in fields(kind) if one.name in options}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    options = vars(_parser().parse_args(arguments))
    if (rescale := options["rescale_timesteps"]) is not None:
        options["rescale_timesteps"] = rescale == "yes"
    try:
        settings = Settings(**_taken(options, Settings))
        single = SingleOptions(**_taken(options, SingleOptions), settings=settings)
        report = convert(**options, single=single)
    except (ValueError, OSError, MemoryError, ImportError) as error:
        print("error:", " ".join(str(error).split()) or type(error).__name__, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("error: interrupted; nothing was written", file=sys.stderr)
        return 130
    print(report)
    return 0


if __name__ == "__main__":
    sys.exit(main())
