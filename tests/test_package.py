"""The package as a whole: its floors, what importing it costs, and what it brings along."""

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import pytest

import ddpm_jax

ROOT = Path(ddpm_jax.__file__).parent
REPOSITORY = ROOT.parent

FLOORS = {
    0: "_typing _version checked extras tables hub images pixels",
    1: "schedulers sampling models guidance text",
    2: "likelihood pipelines export",
    3: "training evaluation learning",
    4: "cli",
}
FLOOR = {module: floor for floor, modules in FLOORS.items() for module in modules.split()}
HOST_ROOMS = ("tables.schedules", "tables.spacing", "images", "pixels", "hub", "text")
HOST_ROOMS += ("training.data",)  # which worker processes import, too
"""Rooms that need no jax at all."""


def module_name(file: Path) -> str:
    parts = file.relative_to(REPOSITORY).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = {module_name(file): file for file in ROOT.rglob("*.py")}


def imported(tree: ast.AST) -> Iterator[str]:
    """Full names of all that a module imports, at its top or inside functions."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def room(name: str) -> str:
    """The file or folder of ddpm_jax that a full name belongs to; "" for the package itself."""
    first = name.split(".")[1] if "." in name else ""
    return first if first in FLOOR or f"ddpm_jax.{first}" in FILES else ""


def rooms_imported(name: str) -> set[str]:
    tree = ast.parse(FILES[name].read_text())
    return {room(target) for target in imported(tree) if target.split(".")[0] == "ddpm_jax"} - {
        room(name)
    }


def test_every_module_has_a_floor():
    rooms = {room(name) for name in FILES} - {""}
    assert rooms <= set(FLOOR), "give the new module a floor in FLOORS"


def test_imports_point_down():
    up: dict[str, set[str]] = {}
    for name in FILES:
        if name == "ddpm_jax":  # the public names, above all floors but the command line
            continue
        floor, targets = FLOOR[room(name)], rooms_imported(name)
        up[name] = {target for target in targets if target == "" or FLOOR[target] > floor}
    assert not {name: targets for name, targets in up.items() if targets}
    assert "cli" not in rooms_imported("ddpm_jax")


def test_rooms_of_one_floor_have_no_circle():
    """Within a floor, rooms may build on each other, one way."""
    needs: dict[str, set[str]] = {}
    for name in FILES:
        if room(name):
            needs.setdefault(room(name), set()).update(rooms_imported(name) - {""})
    while needs:
        free = {name for name, below in needs.items() if not below & set(needs)}
        assert free, f"these import each other: {sorted(needs)}"
        needs = {name: below for name, below in needs.items() if name not in free}


def test_host_rooms_import_no_jax():
    tops = {
        name: {target.split(".")[0] for target in imported(ast.parse(FILES[name].read_text()))}
        for name in FILES
        if name.removeprefix("ddpm_jax.").startswith(HOST_ROOMS)
    }
    assert len(tops) >= len(HOST_ROOMS)
    assert not {name for name, found in tops.items() if found & {"jax", "flax", "optax"}}


def modules_after(statement: str) -> set[str]:
    """What a fresh process has loaded after a statement."""
    code = f"{statement}\nimport json, sys\nprint(json.dumps(sorted(sys.modules)))"
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, check=True, capture_output=True, text=True
    )
    return set(json.loads(run.stdout))


def test_import_loads_no_optional_thing():
    """`.ci/import_time.py` measures the seconds; this says which modules would cost them."""
    heavy = (
        "huggingface_hub tokenizers optax orbax scipy tqdm tyro torch diffusers matplotlib sklearn"
    ).split()
    ours = modules_after("import ddpm_jax")
    assert "ddpm_jax.evaluation" not in ours  # at the first use of one of its names
    base = modules_after("import jax, flax")
    assert not (ours - base) & set(heavy)


def test_converter_needs_neither_jax_nor_us():
    loaded = modules_after("import weights_convert")
    assert not loaded & {"jax", "flax", "torch", "ddpm_jax", "orbax", "huggingface_hub"}


def test_tables_need_no_device():
    """Schedulers write their tables where jax finds no device at all."""
    code = (
        "import ddpm_jax as dj\n"
        "tables = [dj.DDIMScheduler().table(9, eta=0.5), dj.PNDMScheduler().table(9)]\n"
        "import jax\n"
        "try: jax.devices()\n"
        "except RuntimeError: print([len(table) for table in tables])\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", code],
        cwd=REPOSITORY,
        env={"PATH": "/usr/bin:/bin", "JAX_PLATFORMS": "none_such"},
        check=False,
        capture_output=True,
        text=True,
    )
    assert run.stdout.strip() == "[9, 18]", run.stderr


def test_version_has_one_source():
    version = ddpm_jax.__version__
    assert f"\n## {version} " in (REPOSITORY / "CHANGELOG.md").read_text()
    try:
        assert metadata.version("ddpm-jax") == version
    except metadata.PackageNotFoundError:
        pytest.skip("run from a source tree that is not installed")


@pytest.mark.parametrize(("name", "size"), [("digits", 3_300_000), ("avatars", 8_000_000)])
def test_models_that_the_package_brings_along(name: str, size: int):
    """Half precision: all together stay small. Cards say how they were made."""
    bundled = ROOT / "bundled" / name
    files = [file for file in bundled.rglob("*") if file.is_file()]
    assert (bundled / "model_index.json").is_file()
    assert size * 0.9 < sum(file.stat().st_size for file in files) < size
    assert "- **Data**: " in (bundled / "README.md").read_text()


def test_files_that_the_package_brings_along():
    assert (ROOT / "py.typed").is_file()
    assert (REPOSITORY / "weights_convert" / "py.typed").is_file()
