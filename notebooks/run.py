"""Executes quicktour.ipynb after checking that it says the same as quicktour.py.

    python notebooks/run.py           execute and throw the outputs away
    python notebooks/run.py --write   make quicktour.ipynb anew from quicktour.py, with outputs

With DDPM_JAX_FAST set in the environment the cells do less work. Needs the extra `notebooks`.
"""

import os
import sys
import time
from pathlib import Path

import jupytext
import nbformat
from nbclient import NotebookClient

HERE = Path(__file__).resolve().parent
SCRIPT, NOTEBOOK = HERE / "quicktour.py", HERE / "quicktour.ipynb"
CELL_LIMIT = 600  # seconds


def main() -> int:
    script = jupytext.read(SCRIPT)
    if sys.argv[1:] not in ([], ["--write"]):
        print(__doc__)
        return 2
    writing = bool(sys.argv[1:])
    if not writing and cells(script) != cells(nbformat.read(NOTEBOOK, as_version=4)):
        print("quicktour.ipynb and quicktour.py differ: python notebooks/run.py --write")
        return 1
    start = time.perf_counter()
    execute(script)
    if writing:
        save(script)
    print(f"CI: quicktour in {time.perf_counter() - start:.0f} s")
    return 0


def cells(notebook: nbformat.NotebookNode) -> list[tuple[str, str]]:
    return [(cell.cell_type, cell.source) for cell in notebook.cells]


def execute(notebook: nbformat.NotebookNode) -> None:
    """Runs every cell; raises at the first error."""
    paths = [str(HERE.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    os.environ["PYTHONPATH"] = os.pathsep.join(paths)  # of the kernel: this checkout comes first
    NotebookClient(
        notebook,
        timeout=CELL_LIMIT,
        kernel_name="python3",
        record_timing=False,
        resources={"metadata": {"path": str(HERE)}},
    ).execute()


def save(notebook: nbformat.NotebookNode) -> None:
    """Writes the notebook with its outputs and nothing that differs from machine to machine."""
    notebook.metadata = {
        "jupytext": {"formats": "ipynb,py:percent"},
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    for i, cell in enumerate(notebook.cells):
        cell.id = f"cell-{i}"
        cell.metadata = {}
    nbformat.validate(notebook)
    nbformat.write(notebook, NOTEBOOK)


if __name__ == "__main__":
    sys.exit(main())
