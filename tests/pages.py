"""The tables of pages whose cells are code."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
FROM_DIFFUSERS = ROOT / "docs" / "start" / "from_diffusers.md"
THEIRS, OURS = 1, 2
"""Columns of its tables."""
HUB = {"google/ddpm-cifar10-32": "tiny", "stable-diffusion-v1-5/stable-diffusion-v1-5": "tiny-sd"}
"""Small folders that stand for the repositories of the hub."""


def column(page: Path, index: int) -> list[str]:
    """The cells of a column of all tables that are code, from top to bottom."""
    rows = re.findall(r"^\|.*\|$", page.read_text(encoding="utf-8"), re.MULTILINE)
    cells = [row.split("|")[index].strip() for row in rows]
    return [cell[1:-1] for cell in cells if cell.startswith("`")]


def local(code: str) -> str:
    """Code that names the small folders in place of the hub."""
    for name, folder in HUB.items():
        code = code.replace(name, folder)
    return code
