"""What a component is on disk: the names of its folder, its config and its weights.

Each class of a component carries one value, `files`, and whatever reads or writes folders asks it.
A new component is a new value; nothing else here knows one by name.
"""

from dataclasses import dataclass

from weights_convert.files import Stem


@dataclass(frozen=True, kw_only=True)
class ComponentFiles:
    """The files of one component, and the classes that its config may name."""

    folder: str
    """Its folder in a pipeline, which is also its name in `model_index.json`."""
    config: str
    """The name of its config file."""
    classes: tuple[str, ...] = ()
    """The class names that are accepted, today's first; empty: the config's reader decides."""
    weights: Stem | None = None
    """What its weight files are called; None: it has none."""
    companions: tuple[str, ...] = ()
    """Files of the pipeline's folder that are fetched with it, where they exist."""

    def prefixes(self, subfolder: str | None) -> list[str]:
        """Where in a folder the component may lie, as path prefixes, in the order of looking."""
        return [f"{self.folder}/", ""] if subfolder is None else [f"{subfolder.strip('/')}/"]

    def configs(self, subfolder: str | None) -> list[str]:
        """The paths at which its config may lie, in the order of looking."""
        return [prefix + self.config for prefix in self.prefixes(subfolder)]
