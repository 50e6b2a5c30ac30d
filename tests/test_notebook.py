"""Each notebook matches its readable script. notebooks/run.py executes them."""

import json
import re
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent.parent / "notebooks"
SIZE_LIMIT = 1_000_000  # bytes, including images
IMAGES = {"quicktour": 8, "train": 5, "text_to_image": 12}
"""The notebooks, and the minimum number of images in each."""


def script_cells(name: str) -> list[tuple[str, str]]:
    """(cell type, source) of the percent format."""
    text = (FOLDER / f"{name}.py").read_text(encoding="utf-8")
    cells = []
    for cell in re.split(r"(?m)^# %%", text)[1:]:
        head, _, body = cell.partition("\n")
        lines = body.strip().splitlines()
        if head.strip() == "[markdown]":
            assert all(line.startswith("#") for line in lines)
            cells.append(("markdown", "\n".join(line.removeprefix("#")[1:] for line in lines)))
        else:
            cells.append(("code", "\n".join(lines)))
    return cells


def notebook(name: str) -> dict:
    return json.loads((FOLDER / f"{name}.ipynb").read_text(encoding="utf-8"))


def test_all_notebooks_are_tested() -> None:
    assert {path.stem for path in FOLDER.glob("*.ipynb")} == IMAGES.keys()


@pytest.mark.parametrize("name", IMAGES)
def test_notebook_matches_its_script(name: str) -> None:
    found = [(cell["cell_type"], "".join(cell["source"])) for cell in notebook(name)["cells"]]
    assert found == script_cells(name), f"run `python notebooks/run.py --write {name}`"


@pytest.mark.parametrize(("name", "least"), IMAGES.items())
def test_notebook_was_executed_from_top_to_bottom(name: str, least: int) -> None:
    code = [cell for cell in notebook(name)["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    outputs = [output for cell in code for output in cell["outputs"]]
    assert not [output for output in outputs if output["output_type"] == "error"]
    assert not [output for output in outputs if output.get("name") == "stderr"]
    images = [output for output in outputs if "image/png" in output.get("data", {})]
    assert len(images) >= least
    assert (FOLDER / f"{name}.ipynb").stat().st_size < SIZE_LIMIT
