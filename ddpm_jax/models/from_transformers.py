"""The base of the networks whose config file is one of transformers."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from ddpm_jax.hub.config import Config
from ddpm_jax.models.pretrained import Model

ModelT = TypeVar("ModelT", bound="TransformersModel")


class TransformersModel(Model):
    """A network whose config names its class in `architectures`.

    transformers writes many fields that a network does not read: those of a file are left out. A
    config within the config is a section. Its fields are those of the model behind a prefix.
    """

    model_type: ClassVar[str]
    """The name of the kind of config."""
    sections: ClassVar[Mapping[str, str]] = {}
    """The configs within the config, and the prefix of their fields."""

    @classmethod
    def from_config(cls: type[ModelT], config: Mapping[str, Any], **overrides: Any) -> ModelT:
        """The model of a config, with or without sections; fields of others are left out. As
        `Model.from_config` otherwise.
        """
        return super().from_config(cls._known(config), **overrides)

    @property
    def config(self) -> Config:
        """Every field of the config, in sections as in transformers."""
        fields = {**super().config, **self.fixed_fields}
        nested: dict[str, Any] = {}
        for section, prefix in self.sections.items():
            inside = [name for name in fields if name.startswith(prefix)]
            nested[section] = {name.removeprefix(prefix): fields.pop(name) for name in inside}
        return Config(fields | nested, class_name=type(self).__name__)

    @classmethod
    def read_config(cls, folder: Path) -> dict[str, Any]:
        """The model's fields in a component's folder; all others are left out.

        Raises:
            ValueError: the file is missing, is not a JSON object, or belongs to another class.
        """
        return cls._known(super().read_config(folder))

    @classmethod
    def _known(cls, config: Mapping[str, Any]) -> dict[str, Any]:
        """The fields of a config that the network reads."""
        known: Iterable[str] = {*cls._config_fields(), *cls.fixed_fields}
        return {name: value for name, value in cls._flat(config).items() if name in known}

    @classmethod
    def _flat(cls, config: Mapping[str, Any]) -> dict[str, Any]:
        """The fields of a config, those of its sections with their prefix."""
        fields = dict(config)
        for section, prefix in cls.sections.items():
            inside = fields.pop(section, None)
            inside = fields.pop(f"{section}_dict", None) or inside or {}  # of 2022; it replaces
            if not isinstance(inside, Mapping):
                raise ValueError(f"{section} must be an object with fields, got {inside!r}")
            fields |= {prefix + str(name): value for name, value in inside.items()}
        return fields

    @classmethod
    def _named_class(cls, config: Mapping[str, Any]) -> Any:
        named = config.get("architectures") or [cls.__name__]
        return cls.__name__ if cls.__name__ in named else named[0]

    @classmethod
    def _class_entry(cls) -> dict[str, Any]:
        return {"architectures": [cls.__name__], "model_type": cls.model_type}
