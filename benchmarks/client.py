"""Talking to workers: one process for each library, so that memory and threads are its own."""

import json
import os
import selectors
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Any

from benchmarks.machine import ROOT


class WorkerError(Exception):
    """A worker could not do what it was asked; the message is one line that says why."""


class Worker:
    """A context manager around one worker process.

    Args:
        spec: what to measure; see `benchmarks.worker`.
        environment: variables set for the process.
        limit: seconds that one request may take.
    """

    def __init__(self, spec: dict[str, Any], environment: dict[str, str], limit: float):
        self._spec, self._environment, self._limit = spec, environment, limit

    def __enter__(self) -> "Worker":
        self._log = tempfile.TemporaryFile()
        path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.worker", json.dumps(self._spec)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            env={**os.environ, **self._environment, "PYTHONPATH": path},
        )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        process = self._process
        if kind is not None:
            process.kill()
        try:
            process.communicate(timeout=20)  # its input ends, and so does it
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
        self._log.close()

    @property
    def pid(self) -> int:
        """The process."""
        return self._process.pid

    def ask(self, method: str, *arguments: Any) -> Any:
        """The answer to one request.

        Raises:
            WorkerError: it failed, ended, or took longer than the limit.
        """
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps([method, arguments]).encode() + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise WorkerError(self._ending()) from None
        answer = json.loads(self._read_line(method))
        if "error" in answer:
            raise WorkerError(answer["error"])
        return answer["value"]

    def log(self) -> str:
        """What the process wrote to standard error so far."""
        descriptor = self._log.fileno()  # its offset is the process's too: read without moving it
        return os.pread(descriptor, os.fstat(descriptor).st_size, 0).decode(errors="replace")

    def _read_line(self, method: str) -> bytes:
        """One line of output, read unbuffered so that the wait can be limited."""
        assert self._process.stdout is not None
        descriptor, line = self._process.stdout.fileno(), b""
        until = time.monotonic() + self._limit
        with selectors.DefaultSelector() as selector:
            selector.register(descriptor, selectors.EVENT_READ)
            while not line.endswith(b"\n"):
                if not selector.select(max(until - time.monotonic(), 0)):
                    self._process.kill()
                    raise WorkerError(f"{method} took longer than {self._limit:.0f} s")
                part = os.read(descriptor, 65536)
                if not part:
                    raise WorkerError(self._ending())
                line += part
        return line

    def _ending(self) -> str:
        code = self._process.wait()
        said = [line.strip() for line in self.log().splitlines() if line.strip()]
        return f"the process ended with code {code}: {said[-1] if said else 'it said nothing'}"


def environment(library: str, scratch: Path) -> dict[str, str]:
    """Variables for a worker: cold caches, so that compilation is measured and not its memory."""
    if library == "torch":
        return {"TORCHINDUCTOR_CACHE_DIR": str(Path(tempfile.mkdtemp(dir=scratch)))}
    return {"JAX_ENABLE_COMPILATION_CACHE": "false", "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
