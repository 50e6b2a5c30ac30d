"""The notebook and its readable pair say the same. notebooks/run.py executes it."""

import json
import re
from pathlib import Path

FOLDER = Path(__file__).parent.parent / "notebooks"
SIZE_LIMIT = 1_000_000  # bytes, pictures included


def script_cells() -> list[tuple[str, str]]:
    """(cell type, source) of the percent format."""
    text = (FOLDER / "quicktour.py").read_text(encoding="utf-8")
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


def notebook() -> dict:
    return json.loads((FOLDER / "quicktour.ipynb").read_text(encoding="utf-8"))


def test_notebook_and_script_are_in_step() -> None:
    found = [(cell["cell_type"], "".join(cell["source"])) for cell in notebook()["cells"]]
    assert found == script_cells(), "run `python notebooks/run.py --write`"


def test_notebook_was_executed_from_top_to_bottom() -> None:
    code = [cell for cell in notebook()["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    outputs = [output for cell in code for output in cell["outputs"]]
    assert not [output for output in outputs if output["output_type"] == "error"]
    assert not [output for output in outputs if output.get("name") == "stderr"]
    pictures = [output for output in outputs if "image/png" in output.get("data", {})]
    assert len(pictures) >= 8
    assert (FOLDER / "quicktour.ipynb").stat().st_size < SIZE_LIMIT
