"""The pages of docs/ as programs: the code runs, its output is as shown, and all names exist."""

import ast
import contextlib
import functools
import importlib.util
import inspect
import io
import json
import re
import shlex
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from launch import printed

import ddpm_jax as dj
from ddpm_jax import training
from ddpm_jax.cli import app
from ddpm_jax.training import data
from ddpm_jax.training.run.presets import PRESETS
from weights_convert import Settings
from weights_convert.single_file import LAYOUTS
from weights_convert.state_dicts import AVERAGE, PLAIN

REPO = Path(__file__).parent.parent
DOCS = REPO / "docs"
ALL_PAGES = sorted(DOCS.rglob("*.md"))

# A block of code, and its output: the block of text that follows directly, if there is one.
CODE = re.compile(r"^```python\n(.*?)^```$(?:\n+^```text\n(.*?)^```$)?", re.S | re.M)
SEVERAL_DEVICES = ("devices.md", "scaling.md")
EXPORTS = "export.md"
EVALUATION = "evaluation.md"

TEXT_TO_IMAGE, CHECKPOINTS, OF_EVALUATION = (
    (DOCS / page).read_text(encoding="utf-8")
    for page in ("text_to_image.md", "checkpoints.md", EVALUATION)
)
FROM_THE_HUB = re.compile(r"^```py\n(.*?)^```$", re.S | re.M)
"""Code that is not run, since it names repositories of the hub."""


def run_page(path: Path) -> int:
    """Runs a page's blocks as one program, compares their output, and returns their number."""
    text = path.read_text(encoding="utf-8")
    module = ModuleType("page")
    sys.modules["page"] = module  # dataclasses look their module up
    blocks = list(CODE.finditer(text))
    for block in blocks:
        line = text[: block.start()].count("\n") + 1
        code, shown = block.groups()
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile("\n" * line + code, str(path), "exec"), vars(module))
        where = f"{path.name}:{line}"
        assert printed.getvalue().strip() == (shown or "").strip(), f"{where} prints something else"
    return len(blocks)


PROGRAMS = (
    "denoise.md",
    "training.md",
    "text_to_image.md",
    "research.md",
    "own_sampler.md",
    "likelihood.md",
)
FAST_PAGES = ("tables.md",)
SLOW_PAGES = [pytest.param(page, marks=pytest.mark.slow) for page in PROGRAMS]
STARTS = ("start/sample.md", "start/train.md", "start/convert.md", "start/write_samplers.md")


# fast: the code of README, and tests/test_likelihood.py
@pytest.mark.parametrize("page", [*FAST_PAGES, *SLOW_PAGES])
def test_code_of_a_page(page: str) -> None:
    assert run_page(DOCS / page) > 3


def test_code_of_evaluation() -> None:
    assert run_page(DOCS / EVALUATION) > 1


@pytest.mark.slow  # fast: the code of README, of which this is a part
@pytest.mark.parametrize("page", STARTS)
def test_code_of_a_first_page(page: str) -> None:
    assert run_page(DOCS / page) > 0


@pytest.mark.slow  # fast: tests/export, which runs the lines without this library
def test_code_of_exports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a folder of its own, because it writes a file."""
    pytest.importorskip("flatbuffers", reason="jax.export stores programs with it")
    monkeypatch.chdir(tmp_path)
    assert run_page(DOCS / EXPORTS) > 3


@pytest.mark.slow  # fast: tests/sampling/test_sharding.py
@pytest.mark.parametrize("page", SEVERAL_DEVICES)
def test_code_for_several_devices(page: str) -> None:
    """In its own process, because the number of devices is fixed when jax starts."""
    script = (
        "import jax; assert jax.device_count() == 4\n"
        "from tests.test_docs import run_page, DOCS\n"
        f"assert run_page(DOCS / '{page}') > 1\n"
    )
    printed("-W", "error", "-c", script, devices=4)


@pytest.mark.parametrize("name", ["samplers", "performance"])
def test_generated_pages_are_current(name: str) -> None:
    path = DOCS / f"make_{name}.py"
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None  # noqa: PT018
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    written = (DOCS / f"{name}.md").read_text(encoding="utf-8")
    assert written == module.page(), f"run: python docs/make_{name}.py"


def test_every_page_with_code_is_run() -> None:
    pages = {page.relative_to(DOCS).as_posix(): page.read_text("utf-8") for page in ALL_PAGES}
    with_code = {name for name, text in pages.items() if CODE.search(text)}
    run = {*FAST_PAGES, EVALUATION, *PROGRAMS, *STARTS, *SEVERAL_DEVICES, EXPORTS}
    assert with_code - {"start/from_diffusers.md"} == run  # that one: test_from_diffusers.py


@pytest.mark.parametrize("block", FROM_THE_HUB.findall(TEXT_TO_IMAGE))
def test_code_that_is_not_run_has_names_that_exist(block: str) -> None:
    for call in ast.walk(ast.parse(block)):
        if isinstance(call, ast.Call) and (name := ast.unparse(call.func)).startswith("dj."):
            function = eval(name, {"dj": dj})
            accepted = {*inspect.signature(function).parameters, *dj.LoadOptions.__annotations__}
            assert {keyword.arg for keyword in call.keywords} <= accepted


FIRST_PAGES = "".join((DOCS / page).read_text(encoding="utf-8") for page in STARTS)
GALLERY = (DOCS / "gallery.md").read_text(encoding="utf-8")
COMMANDS = {
    line
    for text in (TEXT_TO_IMAGE, CHECKPOINTS, OF_EVALUATION, FIRST_PAGES, GALLERY)
    for line in re.findall(r"(?m)^ddpm-jax .*$", text.replace("\\\n", ""))
}


@pytest.mark.parametrize("line", sorted(COMMANDS))
def test_commands_parse(line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("photos-run").mkdir()
    PRESETS["tiny"].save(tmp_path / "photos-run" / "settings.json")  # the run that is resumed
    words = shlex.split(line, comments=True)
    assert isinstance(app._parse(words[1:]), app.COMMANDS[words[1]])


def test_the_page_of_checkpoints_has_every_layout_and_setting() -> None:
    for name in (*LAYOUTS, *Settings.__annotations__):
        assert f"`{name}`" in CHECKPOINTS
    for name in (*PLAIN, *AVERAGE):
        assert f"`{name}`" in CHECKPOINTS
    named = NAMED_TEST.findall(CHECKPOINTS)
    assert len(named) > 6
    assert all(test in _tests_in(file) for file, test in named)


def test_a_wrong_output_in_a_page_fails(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("```python\nprint(1 + 1)\n```\n\n```text\n3\n```\n", encoding="utf-8")
    with pytest.raises(AssertionError, match="prints something else"):
        run_page(page)


# Links.


def test_links_have_targets() -> None:
    """Of the site and of the repository; the build of the site looks for the headings too."""
    for page in ALL_PAGES:
        text = page.read_text(encoding="utf-8")
        targets = re.findall(r"\]\(([^)#\s]+)", text)
        missing = [t for t in targets if "://" not in t and not (page.parent / t).exists()]
        assert not missing, page.name


def test_every_page_is_in_a_toctree() -> None:
    """Of docs/index.md or docs/api/index.md; the build of the site refuses such a page too."""
    listed: set[Path] = set()
    for index in (DOCS / "index.md", DOCS / "api" / "index.md"):
        for tree in re.findall(r"^```{toctree}\n(.*?)^```", index.read_text("utf-8"), re.S | re.M):
            names = [line for line in tree.splitlines() if line and not line.startswith(":")]
            listed |= {(index.parent / f"{name}.md").resolve() for name in names}
    assert [page.name for page in ALL_PAGES if page not in {DOCS / "index.md", *listed}] == []


def test_every_picture_of_docs_is_in_the_gallery() -> None:
    pictures = {path.name for path in (DOCS / "images").iterdir()}
    assert set(re.findall(r"\(images/([\w.-]+)\)", GALLERY)) == pictures


def test_notebooks_have_their_outputs_and_name_no_folder_of_a_machine() -> None:
    """The site shows them as they are committed."""
    for path in sorted((REPO / "notebooks").glob("*.ipynb")):
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        outputs = [cell["outputs"] for cell in cells if cell["cell_type"] == "code"]
        assert sum(map(bool, outputs)) > len(outputs) / 2, path.name
        texts = [
            json.dumps({**out.get("data", out), "image/png": ""}) for o in outputs for out in o
        ]
        assert not re.search(r"(/home|/Users|/root|/tmp|[A-Z]:\\)", "".join(texts)), path.name


# The pages of the API.


@functools.cache
def public_names() -> Any:
    spec = importlib.util.spec_from_file_location("public_names", DOCS / "public_names.py")
    assert spec is not None and spec.loader is not None  # noqa: PT018
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_group_of_names_has_its_place() -> None:
    api, pages = public_names(), "".join(p.read_text("utf-8") for p in DOCS.glob("api/*.md"))
    shown = re.findall(r"^```{public} ([\w.]+)\n:group: (.*)\n```$", pages, re.M)
    assert sorted(shown) == sorted((m, group) for m in api.MODULES for group in api.groups(m))
    for module in (dj, training, data):
        listed = {name for name in module.__all__ if not name.startswith("_")}
        assert {n for group in api.groups(module.__name__).values() for n in group} == listed


def undocumented(name: str) -> str:
    """Missing parts of a public name's docs: a doctest, or descriptions of fields or arguments."""
    api = public_names()
    found = api.find(name, "ddpm_jax")
    text = ast.get_docstring(found.node) or ""
    if ">>>" in text:
        return ""
    if not text or not isinstance(found.node, ast.ClassDef):
        return "no doctest" if text else "no docstring"
    fields = api.fields(found)
    docs = [ast.get_docstring(kind.node) or "" for kind in api.lineage(found)]
    if not fields and not any("Args:" in text for text in docs):
        return "neither doctest, fields nor arguments"
    bare = [field.name for field in fields if not field.text]
    return "" if not bare or "fields as in `" in text else f"no words on {', '.join(bare)}"


def test_public_names_are_documented() -> None:
    names = [name for name in dj.__all__ if not name.startswith("_")]
    assert not {name: lack for name in names if (lack := undocumented(name))}


def test_names_of_training_are_documented() -> None:
    """Functions need more than one line or a reference; a class may rely on its methods."""
    api, faults = public_names(), []
    for module in (training, data):
        for name in module.__all__:
            found = api.find(name, module.__name__)
            text = api.said_of(found)
            short = len(text.splitlines()) < 2 and "as `" not in text
            if not text or (isinstance(found.node, ast.FunctionDef) and short):
                faults.append(f"{module.__name__}: {name}")
    assert not faults


# The pages of differences and of promises.

NAMED_TEST = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")


def rows_of(page: str) -> list[str]:
    lines = (DOCS / page).read_text(encoding="utf-8").splitlines()
    rows = [line for line in lines if line.startswith("|")]
    return [row for row in rows if not re.match(r"\|(-|\s*diffusers\b|\s*promise\b)", row)]


@pytest.mark.parametrize("page", ["differences.md", "promises.md"])
def test_every_row_names_a_test_that_exists(page: str) -> None:
    rows = rows_of(page)
    assert len(rows) > 20
    faults = []
    for row in rows:
        named = NAMED_TEST.findall(row)
        faults += [] if named else [f"no test: {row}"]
        faults += [f"{file}::{test}" for file, test in named if test not in _tests_in(file)]
    assert not faults, "\n".join(faults)


def _tests_in(file: str) -> set[str]:
    path = REPO / file
    if not path.exists():
        return set()
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
