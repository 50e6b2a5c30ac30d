"""Executes the notebooks after a check that each matches its script.

    python notebooks/run.py [NAME ...]           execute and discard the outputs
    python notebooks/run.py --write [NAME ...]   make NAME.ipynb from NAME.py, with outputs

Without a name all notebooks are executed. With DDPM_JAX_FAST in the environment the cells do less
work. Needs the extra `notebooks`.
"""

import os
import sys
import tempfile
import time
from pathlib import Path

import jupytext
import nbformat
from nbclient import NotebookClient

HERE = Path(__file__).resolve().parent
NAMES = sorted(path.stem for path in HERE.glob("*.ipynb"))
CELL_LIMIT = 1200  # seconds
WIDGET = "application/vnd.jupyter.widget-view+json"
"""A progress bar, which shows nothing in a saved notebook."""


def main(arguments: list[str]) -> int:
    writing = arguments[:1] == ["--write"]
    names = arguments[writing:]
    if any(not (HERE / f"{name}.py").exists() for name in names):
        print(__doc__)
        return 2
    times = []
    for name in names or NAMES:
        script, notebook = jupytext.read(HERE / f"{name}.py"), HERE / f"{name}.ipynb"
        if not writing and cells(script) != cells(nbformat.read(notebook, as_version=4)):
            print(f"{name}.ipynb and {name}.py differ: python notebooks/run.py --write {name}")
            return 1
        start = time.perf_counter()
        execute(script)
        if writing:
            save(script, notebook)
        times.append(f"{name} in {time.perf_counter() - start:.0f} s")
    print(f"CI: {', '.join(times)}")
    return 0


def cells(notebook: nbformat.NotebookNode) -> list[tuple[str, str]]:
    return [(cell.cell_type, cell.source) for cell in notebook.cells]


def execute(notebook: nbformat.NotebookNode) -> None:
    """Runs every cell, in an empty folder; raises at the first error."""
    paths = [str(HERE.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    os.environ["PYTHONPATH"] = os.pathsep.join(paths)  # for the kernel: this checkout comes first
    with tempfile.TemporaryDirectory() as folder:
        NotebookClient(
            notebook,
            timeout=CELL_LIMIT,
            kernel_name="python3",
            record_timing=False,
            resources={"metadata": {"path": folder}},
        ).execute()


def save(notebook: nbformat.NotebookNode, path: Path) -> None:
    """Writes the notebook with its outputs, without values that differ between machines."""
    notebook.metadata = {
        "jupytext": {"formats": "ipynb,py:percent"},
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    for i, cell in enumerate(notebook.cells):
        cell.id = f"cell-{i}"
        cell.metadata = {}
        if cell.cell_type == "code":
            cell.outputs = [out for out in cell.outputs if WIDGET not in out.get("data", {})]
            for out in cell.outputs:  # Pillow's pictures come as PNG, and once more as JPEG
                out.get("data", {}).pop("image/jpeg", None)
    nbformat.validate(notebook)
    nbformat.write(notebook, path)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
