"""`python -m weights_convert SRC DST`: convert a checkpoint from the command line.

It prints one line for each network, and what the result lacks. Every error is one line on stderr,
with exit status 1, or 2 for wrong arguments.
"""

import argparse
import sys
from collections.abc import Sequence
from typing import NoReturn, get_args

from weights_convert.convert import Dtype, Kind, SingleOptions, convert

_EXAMPLES = """examples:
  python -m weights_convert ddpm-cat-256 ddpm-cat-256-flax
  python -m weights_convert ddpm-cat-256-flax back --to diffusers
  python -m weights_convert diffusion_pytorch_model.bin out --to orbax --overwrite
  python -m weights_convert v1-5-pruned-emaonly.ckpt sd15 --tokenizer clip-vit-large-patch14
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
        help="default: flax; of a Stable Diffusion in one file, diffusers",
    )
    parser.add_argument("--variant", help='which weights of a folder to read, for example "fp16"')
    parser.add_argument("--dtype", choices=get_args(Dtype), help="default: the stored dtype")
    parser.add_argument("--overwrite", action="store_true", help="overwrite a result at DST")
    parser.add_argument("--component", help='only this one of a pipeline, for example "vae"')
    single = parser.add_argument_group("of a Stable Diffusion in one file")
    single.add_argument("--tokenizer", help="a folder to copy the tokenizer from")
    single.add_argument("--ema", action="store_true", help="take the moving average")
    single.add_argument(
        "--prediction-type", choices=["epsilon", "v_prediction"], help="if the file does not say it"
    )
    single.add_argument(
        "--without-depth-estimator", action="store_true", help="leave the depth estimator out"
    )
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    options = _parser().parse_args(arguments)
    try:
        report = convert(
            options.src,
            options.dst,
            to=options.to,
            overwrite=options.overwrite,
            variant=options.variant,
            dtype=options.dtype,
            component=options.component,
            single=SingleOptions(
                ema=options.ema,
                without_depth_estimator=options.without_depth_estimator,
                prediction_type=options.prediction_type,
                tokenizer=options.tokenizer,
            ),
        )
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
