"""Help texts of options, from the docstrings under the fields."""

import dataclasses
from types import MappingProxyType
from typing import Any, get_type_hints

import docstring_parser


def unwrap(text: str) -> str:
    """A text without the line breaks of the source: one line for each paragraph."""
    paragraphs = text.split("\n\n")
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)


def use_docstrings(options: Any) -> None:
    """Sets the help of each option, in its field's metadata, where tyro looks first.

    From a docstring tyro keeps line breaks of the source, and wraps once more at its own width.

    Args:
        options: a dataclass; groups of options are fields that are dataclasses.
    """
    docs = {
        param.arg_name: param.description
        for cls in filter(dataclasses.is_dataclass, reversed(options.__mro__))
        for param in docstring_parser.parse_from_object(cls).params
    }
    types = get_type_hints(options)
    for field in dataclasses.fields(options):
        if dataclasses.is_dataclass(types[field.name]):
            use_docstrings(types[field.name])
        elif text := docs.get(field.name):
            text = unwrap(text[0].upper() + text[1:])
            field.metadata = MappingProxyType({**field.metadata, "help": text})
