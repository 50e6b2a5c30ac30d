"""Schedulers as configs: checked at construction, taken from one another, read and written.

A subclass is a frozen dataclass whose fields carry diffusers' names.
"""

# pyright: reportUnnecessaryIsInstance=false
# Users are not type-checked.

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, ClassVar, TypeVar, Unpack

import numpy as np

from ddpm_jax.checked import type_faults
from ddpm_jax.hub import hub
from ddpm_jax.hub.component import ComponentFiles
from ddpm_jax.hub.config import FAMILY, Config, transfer
from ddpm_jax.hub.files import read_json, write_json

ConfiguredT = TypeVar("ConfiguredT", bound="Configured")
FILES = ComponentFiles(folder="scheduler", config="scheduler_config.json")


@dataclass(frozen=True, kw_only=True)
class Configured:
    """A frozen config with diffusers' transfer rules and files."""

    files: ClassVar[ComponentFiles] = FILES
    family: ClassVar[frozenset[str]] = FAMILY  # whose networks it samples, by class name
    _explicit: ClassVar[frozenset[str]] = frozenset()  # set for each instance in __new__
    _hidden: ClassVar[Mapping[str, Any]] = {}
    _unchecked: ClassVar[tuple[str, ...]] = ()  # fields that a subclass checks itself
    _foreign: ClassVar[Mapping[str, Mapping[Any, str]]] = {}
    """Values that a field has in related schedulers, with what they become here; as diffusers."""
    unread: ClassVar[frozenset[str]] = frozenset()
    """Fields of diffusers' class that the method does not read. They keep what another scheduler's
    config has in them, for the way back, and are refused if they are given directly."""

    def __new__(cls: type[ConfiguredT], **given: Any) -> ConfiguredT:
        """Notes which fields were given; they, and no defaults, go over to other schedulers."""
        self = object.__new__(cls)
        object.__setattr__(self, "_explicit", frozenset(given))
        object.__setattr__(self, "_hidden", {})
        return self

    def __post_init__(self) -> None:
        for name, becomes in self._foreign.items():
            value = getattr(self, name)
            if isinstance(value, str) and value in becomes:
                object.__setattr__(self, name, becomes[value])
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, np.generic):  # as a Python number: hashed and written alike
                object.__setattr__(self, field.name, value.item())
        faults = list(type_faults(self, skip=self._unchecked)) or list(self._faults())
        if faults:
            raise ValueError(f"{type(self).__name__}: {'; '.join(faults)}")

    def _faults(self) -> Sequence[str]:
        """Faults of this config beyond single choices; subclasses extend."""
        return [
            f"{field.name} is not read by this method: leave it out, got {value!r}"
            for field in fields(self)
            if field.name in self.unread and (value := getattr(self, field.name)) != field.default
        ]

    @property
    def config(self) -> Config:
        """The fields, with what the transfer rules need; read-only."""
        return Config(
            {field.name: getattr(self, field.name) for field in fields(self)},
            class_name=type(self).__name__,
            hidden=self._hidden,
            explicit=self._explicit,
        )

    @classmethod
    def from_config(
        cls: type[ConfiguredT], config: Mapping[str, Any], **overrides: Any
    ) -> ConfiguredT:
        """Makes this scheduler from another's config, by diffusers' transfer rules.

        Args:
            config: `.config` of any scheduler, of one in diffusers, or a JSON file's content.
            **overrides: fields of this class that replace the config's.

        Raises:
            ValueError: an override that is no field of this class, or a value that is refused.
        """
        accepted = [field.name for field in fields(cls)]
        unknown = sorted(set(overrides) - set(accepted))
        if unknown:
            raise ValueError(
                f"{cls.__name__} has no {', '.join(unknown)}; its fields are {', '.join(accepted)}"
            )
        taken, hidden = transfer(config, accepted, cls.__name__, cls.family)
        stated = {name: value for name, value in taken.items() if value is not None}
        carried = {name: stated.pop(name) for name in cls.unread & (stated.keys() - overrides)}
        self = cls(**(stated | overrides))  # null is the default of every field that may be null
        object.__setattr__(self, "_hidden", hidden)
        self._carry(carried)
        return self

    def _carry(self, unread: Mapping[str, Any]) -> None:
        """Takes the values that another scheduler's config has in fields that are not read."""
        for name, value in unread.items():
            object.__setattr__(self, name, value)
        object.__setattr__(self, "_explicit", self._explicit | unread.keys())
        if faults := list(type_faults(self, skip=self._unchecked)):
            raise ValueError(f"{type(self).__name__}: {'; '.join(faults)}")

    @classmethod
    def from_pretrained(
        cls: type[ConfiguredT],
        name: str | os.PathLike[str],
        *,
        subfolder: str | None = None,
        **options: Unpack[hub.HubOptions],
    ) -> ConfiguredT:
        """Reads `scheduler_config.json` of a pipeline or scheduler folder, of any scheduler class.

        Args:
            name: a local folder, a bundled name ("digits", "avatars"), or a hub id.
            subfolder: the folder within it; found by itself where the layout is diffusers'.
            **options: revision, variant, cache_dir, token, local_files_only; see
                `HubOptions`. A scheduler has no weights to choose a variant of.

        Raises:
            TypeError: an unknown option.
            ValueError: no such config, or one with a value that is refused.
        """
        folder = hub.component(name, cls.files, subfolder=subfolder, **options)
        return cls.from_config(read_json(folder / cls.files.config))

    def save_pretrained(self, path: str | os.PathLike[str]) -> None:
        """Writes `scheduler_config.json` into a folder, which is made if it is missing.

        Raises:
            ValueError: a field is a function, as SA-Solver's tau_func may be.
        """
        content = {"_class_name": type(self).__name__, **self._hidden, **self.config}
        for name, value in content.items():
            if callable(value):
                raise ValueError(
                    f"{name} is a function, which a file cannot hold, got {value!r}; save a "
                    "config without it, and set it after loading"
                )
        folder = Path(path)
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / self.files.config, content)
