"""How every test runs: jaxtyping's checks on, no rank promotion, x64 off, hasty compilation; and
shared fixtures."""

import contextlib
import gc
import importlib.util
import os
from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import version

from packaging.version import Version

# Hasty compilation: the programs of tests run for milliseconds. `XLA_FLAGS= pytest` compiles them
# as users do; the notebooks, the doctests and README's job are always compiled so. Fusions take
# the most time to compile by XLA's default emitters, which newer releases have no other than.
os.environ.setdefault(
    "XLA_FLAGS",
    "--xla_backend_optimization_level=0"
    + (" --xla_cpu_use_fusion_emitters=false" * (Version(version("jaxlib")) < Version("0.11"))),
)

# A worker a core: more threads of SciPy's algebra would wait for each other.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import jax
import jaxtyping
import pytest
import typechecker
from jax.experimental.compilation_cache import compilation_cache

for _module in list(__import__("sys").modules):
    if _module.split(".")[0] in ("ddpm_jax", "weights_convert"):
        raise RuntimeError(f"{_module} was imported before its annotations could be checked")
jaxtyping.jaxtyped = typechecker.jaxtyped
jaxtyping.install_import_hook(["ddpm_jax", "weights_convert"], "typechecker.check")

jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_include_full_tracebacks_in_locations", False)  # they take a tenth of tracing

MISSING = [name for name in ("torch", "diffusers") if importlib.util.find_spec(name) is None]
"""What tests/parity and the scripts that made the golden files import and is not installed."""

collect_ignore_glob = ["*/make_*.py", *(["parity/*.py"] if MISSING else [])]

COMPILE_EVENT = "/jax/core/compile/backend_compile_duration"


SLOW = (
    "test_kill", "test_resume", "test_scripts", "test_unet_call", "test_end_to_end", "test_run",
    "test_processes", "test_training", "test_train", "test_unet_remat", "test_step",
    "test_trained_result", "test_sharding",
)  # fmt: skip
"""Modules that begin first: each takes so long that it would run alone at the end. test_resume and
test_run wait for the same run, so something stands between them.
"""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: SLOW.index(name) if (name := item.path.stem) in SLOW else len(SLOW))
    for item in items:
        if "parity" in item.path.relative_to(config.rootpath).parts:
            item.add_marker("parity")
        if "parity" in item.keywords and MISSING:
            reason = f"needs {' and '.join(MISSING)}: pip install -e '.[test,parity]'"
            item.add_marker(pytest.mark.skip(reason=reason))
        if "gpu" in item.keywords and jax.default_backend() != "gpu":
            item.add_marker(pytest.mark.skip(reason="needs a GPU"))


def pytest_collection_finish() -> None:
    """What is collected lives to the end, so the garbage collector need not look at it again and
    again, and traces make many objects that are no garbage: 7 % of the time.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if MISSING:
        names = " and ".join(MISSING)
        terminalreporter.write_line(
            f"tests/parity was left out: it needs {names} (pip install -e '.[test,parity]'). "
            "Golden files that were made with them stand in for it."
        )


class Compilations:
    """Counts what XLA compiles; `count` goes up by one a program."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, event: str, _seconds: float, **_details: object) -> None:
        self.count += event == COMPILE_EVENT


SEEN = Compilations()
jax.monitoring.register_event_duration_secs_listener(SEEN)  # for good: none can be taken back


@contextlib.contextmanager
def counting() -> Iterator[Compilations]:
    SEEN.count = 0
    yield SEEN


@pytest.fixture
def count_compilations() -> Callable[[], contextlib.AbstractContextManager[Compilations]]:
    """`with count_compilations() as compiled: ...; assert compiled.count == 0`."""
    return counting


@pytest.fixture(scope="module")
def kept_programs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Has jax keep what it compiles, for modules of many runs that are much the same: each run is a
    new program to jax. Modules of one worker share them; jax's cache is not safe between processes.
    """
    wanted = {
        "jax_compilation_cache_dir": str(tmp_path_factory.getbasetemp() / "programs"),
        "jax_persistent_cache_min_compile_time_secs": 0.0,
        "jax_persistent_cache_min_entry_size_bytes": -1,
    }
    before = {name: getattr(jax.config, name) for name in wanted}

    def use(values: Mapping[str, object]) -> None:
        for name, value in values.items():
            jax.config.update(name, value)
        compilation_cache.reset_cache()  # it looks where it is only once

    use(wanted)
    yield
    use(before)


@pytest.fixture
def as_users_run() -> Iterator[None]:
    """Without run-time type checks, as users run: for tests of the errors that bad input gets."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture(params=[False, True], ids=["float32", "x64"])
def strict_x64(request: pytest.FixtureRequest) -> Iterator[bool]:
    """Runs a test of algebra in the user's mode and again under x64 and strict promotion."""
    if not request.param:
        yield False
        return
    before = jax.config.jax_numpy_dtype_promotion
    jax.config.update("jax_enable_x64", True)
    jax.config.update("jax_numpy_dtype_promotion", "strict")
    try:
        yield True
    finally:
        jax.config.update("jax_enable_x64", False)
        jax.config.update("jax_numpy_dtype_promotion", before)
