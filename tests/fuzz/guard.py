"""What a reader must not do with a file, whatever it holds: hang, take memory, run code, or open
files outside of the file's folder."""

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

SECONDS = 10.0
"""A file of some kilobytes is read in milliseconds."""
TIMES, SLACK = 2, 16 << 20
"""Bytes that a reader may take at once: two for each of the file's, and what Python and jax take
beside a small file."""

RUNS_CODE = {
    "pickle.find_class", "os.exec", "os.posix_spawn", "os.spawn", "os.system", "os.startfile",
    "subprocess.Popen", "ctypes.dlopen", "marshal.loads", "socket.connect", "webbrowser.open",
}  # fmt: skip
"""Of Python's audit events. `marshal.loads` is what an import of a compiled module raises."""
OWN = tuple(
    str(Path(path).resolve()) for path in (sys.prefix, sys.base_prefix, Path(__file__).parents[2])
)
"""Where modules are, which a reader may import at its first use, and an error quotes."""


class Fault(Exception):
    """A reader did what no file may make it do."""


class _Watch:
    """The folder that may be read, while a reader is watched."""

    folder: Path | None = None
    seen: str | None = None


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    folder = _Watch.folder
    if folder is None:
        return
    if event in RUNS_CODE and not _is_import():
        _Watch.seen = f"{event} {arguments!r:.200}"
    if event == "open" and isinstance(arguments[0], str | bytes):
        path = os.path.realpath(os.fsdecode(arguments[0]))
        if not path.startswith((str(folder), *OWN, "/dev/", "/proc/")) and not _is_import():
            _Watch.seen = f"opened {path}"


def _is_import() -> bool:
    """Whether the event is that of an import statement, and not of a file's content."""
    frame: FrameType | None = sys._getframe(2)
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False


class _Memory:
    """The memory that the process takes from here on. Linux tells it, and starts it anew.

    Memory that is asked for and not written to, as Pillow does for a chunk of a PNG, costs nothing
    and is not counted.
    """

    def __init__(self) -> None:
        Path("/proc/self/clear_refs").write_text("5")
        self._before = self._read("VmRSS")

    def peak(self) -> int:
        """The most bytes at once."""
        return self._read("VmHWM") - self._before

    def _read(self, name: str) -> int:
        status = Path("/proc/self/status").read_text()
        return 1024 * int(status.split(f"{name}:")[1].split()[0])


def _alarm(_: int, frame: FrameType | None) -> None:
    raise Fault(f"more than {SECONDS:g} s, at {frame.f_code if frame else 'the end'}")


sys.addaudithook(_audit)  # for good: Python has no way to remove one


@contextmanager
def watched(folder: Path) -> Iterator[None]:
    """Raises Fault if the block does what the module says. `folder` may be read."""
    size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    before = signal.signal(signal.SIGALRM, _alarm)
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    memory = _Memory()
    _Watch.folder, _Watch.seen = folder.resolve(), None
    try:
        yield
    finally:
        _Watch.folder = None
        peak = memory.peak()
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    if _Watch.seen is not None:
        raise Fault(_Watch.seen)
    if peak > TIMES * size + SLACK:
        raise Fault(f"{peak} bytes of memory for files of {size}")


def check(read: Callable[[Path], object], folder: Path) -> bool:
    """Whether the reader takes what is in the folder; False for a ValueError or an OSError.

    Raises:
        Fault: it does what no file may make it do, or raises another error.
    """
    with watched(folder):
        try:
            read(folder)
        except (ValueError, OSError):
            return False
        except Fault:
            raise
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt):
                raise
            raise Fault(f"{type(error).__name__}: {error}") from error
    return True
