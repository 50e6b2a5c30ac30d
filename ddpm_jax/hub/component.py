"""A component on disk: the names of its folder, its config and its weights.

Each component class has one value, `files`. All code that reads or writes folders uses it. A new
component is a new value; no other code here depends on a component's name.
"""

from dataclasses import dataclass

from weights_convert.files import Stem

MODEL_INDEX = "model_index.json"
"""The file of a pipeline that names its class and its components."""


@dataclass(frozen=True, kw_only=True)
class ComponentFiles:
    """The files of one component, and the classes that its config may name."""

    folder: str
    """Its folder in a pipeline, which is also its name in `model_index.json`."""
    config: str
    """The name of its config file."""
    others: tuple[str, ...] = ()
    """Further files of its folder. A folder with one of them needs no config."""
    classes: tuple[str, ...] = ()
    """The accepted class names, the current one first; empty: the reader of the config decides."""
    weights: Stem | None = None
    """The names of its weight files; None: it has no weights."""
    library: str = "diffusers"
    """The library that has its class."""
    companions: tuple[str, ...] = (MODEL_INDEX,)
    """Files of the pipeline's folder that are fetched with it, if they exist."""

    def prefixes(self, subfolder: str | None) -> list[str]:
        """Where the component may be in a folder, as path prefixes, in search order."""
        return [f"{self.folder}/", ""] if subfolder is None else [f"{subfolder.strip('/')}/"]

    def configs(self, subfolder: str | None) -> list[str]:
        """The possible paths of its config, in search order."""
        return [prefix + self.config for prefix in self.prefixes(subfolder)]

    def own(self, prefix: str) -> list[str]:
        """The paths of all its files but weights, with this prefix."""
        return [prefix + name for name in (self.config, *self.others)]
