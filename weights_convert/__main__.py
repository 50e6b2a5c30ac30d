"""`python -m weights_convert SRC DST`: convert a checkpoint from the command line.

It prints one line that summarizes the result. Every error is one line on stderr, with exit status
1, or 2 for wrong arguments.
"""

import argparse
import sys
from collections.abc import Sequence
from typing import NoReturn, get_args

from weights_convert.convert import Dtype, Kind, convert

_EXAMPLES = """examples:
  python -m weights_convert ddpm-cat-256 ddpm-cat-256-flax
  python -m weights_convert ddpm-cat-256-flax back --to diffusers
  python -m weights_convert diffusion_pytorch_model.bin out --to orbax --overwrite
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
    parser.add_argument("src", help="a component's folder, a pipeline's folder, or a weight file")
    parser.add_argument("dst", help="the folder to create; it appears only when it is complete")
    parser.add_argument("--to", choices=get_args(Kind), default="flax", help="default: flax")
    parser.add_argument("--variant", help='which weights of a folder to read, for example "fp16"')
    parser.add_argument("--dtype", choices=get_args(Dtype), help="default: the stored dtype")
    parser.add_argument("--overwrite", action="store_true", help="overwrite a result at DST")
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
