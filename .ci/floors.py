"""Prints the oldest release of each dependency that pyproject.toml allows, as pip's constraints."""

import tomllib
from pathlib import Path

with (Path(__file__).parents[1] / "pyproject.toml").open("rb") as file:
    project = tomllib.load(file)["project"]
print(*(requirement.replace(">=", "==") for requirement in project["dependencies"]), sep="\n")
