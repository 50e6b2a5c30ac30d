"""The entry point: parses the arguments, runs the command, and reports each of its errors in one
line. tyro reports wrong arguments.

Exit codes: 0 success; 2 an option that is unknown, or whose value is refused, by itself or for this
model or data; 130 interrupted; 1 any other failure, such as files that are missing or wrong. With
`DDPM_JAX_TRACEBACK=1` in the environment a failure shows its traceback, for bug reports.
"""

import inspect
import os
import sys
import warnings
from collections.abc import Sequence
from typing import Any

import tyro

from ddpm_jax._version import __version__
from ddpm_jax.cli.common import OptionError
from ddpm_jax.cli.convert import Convert
from ddpm_jax.cli.describe import Describe
from ddpm_jax.cli.evaluate import Evaluate
from ddpm_jax.cli.export import Export
from ddpm_jax.cli.help_texts import unwrap, use_docstrings
from ddpm_jax.cli.info import Info
from ddpm_jax.cli.learn import Learn
from ddpm_jax.cli.sample import Sample
from ddpm_jax.cli.train import Train
from ddpm_jax.cli.verify import Verify

Command = Sample | Train | Learn | Evaluate | Export | Convert | Info | Describe | Verify
COMMANDS: dict[str, type[Command]] = {
    "sample": Sample,
    "train": Train,
    "learn": Learn,
    "evaluate": Evaluate,
    "export": Export,
    "convert": Convert,
    "info": Info,
    "describe": Describe,
    "verify": Verify,
}
DESCRIPTION = f"""Denoising diffusion in JAX, version {__version__}.

ddpm-jax COMMAND --help shows a command's options and examples. ddpm-jax --version shows the
version."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: the arguments without the program name. Default: the arguments of the process.

    Returns:
        The exit code. An error is one line on stderr.
    """
    argv = sys.argv[1:] if argv is None else argv
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _show_warning
            return _run(argv)
    except KeyboardInterrupt as stop:
        return _fail(str(stop) or "interrupted", 130)
    except BrokenPipeError:
        # The reader has closed the pipe; the interpreter must not flush to it at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OptionError as error:
        return _fail(str(error), 2)
    except Exception as error:
        if os.environ.get("DDPM_JAX_TRACEBACK"):
            raise
        return _fail(_message(error), 1)


def _run(argv: Sequence[str]) -> int:
    if list(argv) == ["--version"]:
        print(f"ddpm-jax {__version__}")
        return 0
    try:
        command = _parse(argv)
    except SystemExit as stop:  # tyro has printed the help or the error
        return int(stop.code or 0)
    command.run()
    sys.stdout.flush()
    return 0


def _parse(argv: Sequence[str]) -> Command:
    config: tuple[Any, ...] = (tyro.conf.FlagCreatePairsOff,)
    if argv and argv[0] in COMMANDS:
        command, arguments = COMMANDS[argv[0]], list(argv[1:])
        default: Any = tyro.MISSING_NONPROP
        if issubclass(command, Train):  # its defaults depend on the preset, file, model or run
            arguments, default = command.prepare(arguments)
            config = ()  # a default may be True or False, so each flag needs both forms
        use_docstrings(command)
        summary = unwrap(inspect.getdoc(command) or "")
        return tyro.cli(
            command,
            default=default,
            prog=f"ddpm-jax {argv[0]}",
            description=f"{summary}\n\nExamples:\n{command.EXAMPLES}",
            args=arguments,
            config=config,
        )
    # No valid command: tyro prints help or an error.
    return tyro.extras.subcommand_cli_from_dict(
        COMMANDS, prog="ddpm-jax", description=DESCRIPTION, args=list(argv), config=config
    )


def _message(error: Exception) -> str:
    if isinstance(error, ValueError | OSError | MemoryError) and str(error):
        return str(error)
    return f"{type(error).__name__}: {error}"


def _fail(message: str, code: int) -> int:
    """Prints one line. A list of faults, one per line with a dash, is joined with semicolons."""
    message = message.replace(":\n- ", ": ").replace("\n- ", "; ")
    print("ddpm-jax:", " ".join(message.split()), file=sys.stderr)
    return code


def _show_warning(message: Warning | str, *_: object) -> None:
    from tqdm import tqdm

    with tqdm.external_write_mode(file=sys.stderr):  # above a progress bar, not inside it
        _fail(f"warning: {message}", 0)
