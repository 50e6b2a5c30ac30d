"""Sphinx extension of the site: pages of public names, written from the docstrings by autodoc.

    ```{public} ddpm_jax
    :group: schedulers
    ```

documents the names that stand below the comment `# schedulers` in the `__all__` of `ddpm_jax`. A
link to such a page with a name as its anchor, `api/schedulers.md#DDIMScheduler`, leads to the name.
"""

import ast
import functools
import re
from itertools import chain
from typing import Any, ClassVar

import numpy as np
import numpy.typing
import public_names
from docutils import nodes
from docutils.parsers.rst import directives
from jax.typing import ArrayLike
from public_names import MODULES, PACKAGE, Definition
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.transforms.post_transforms import SphinxPostTransform
from sphinx.util.docutils import SphinxDirective
from sphinx.util.typing import ExtensionMetadata, OptionSpec, stringify_annotation

SHOWN = ("__call__", "__getitem__", "__next__")
"""Special methods that are documented."""
ARRAY_LIKE = [stringify_annotation(kind, "smart") for kind in (ArrayLike, np.typing.ArrayLike)]
"""What autodoc makes of jax's and of NumPy's: long lists of types."""


class Public(SphinxDirective):
    """A table of a group's names, and the documentation of each."""

    required_arguments = 1
    option_spec: ClassVar[OptionSpec | None] = {"group": directives.unchanged_required}

    def run(self) -> list[nodes.Node]:
        module, group = self.arguments[0], self.options["group"]
        self.env.note_dependency(public_names.module_file(module))
        groups = public_names.groups(module)
        if group not in groups:
            raise self.error(f"{module} has no group {group!r}; it has {', '.join(groups)}")
        names = groups[group]
        parts = [f".. currentmodule:: {module}", summaries(names, module)]
        parts += [entry(name, module) for name in names]
        text = "\n\n".join(parts)
        return self.parse_text_to_nodes(f"````{{eval-rst}}\n{text}\n````\n")


def summaries(names: list[str], module: str) -> str:
    """A table of the names and their first sentences."""
    rows: list[str] = []
    for name in names:
        found = public_names.find(name, module)
        assert found is not None, name
        paragraph = " ".join(public_names.said_of(found).split("\n\n")[0].split())
        first = re.split(r"(?<!\.)\. ", paragraph)[0].removesuffix(".")
        rows += [f"* - `{name}`", f"  - {plain(first)}"]
    return block(".. list-table::", [":widths: auto", "", *rows])


def entry(name: str, module: str) -> str:
    """The directive of autodoc that documents a name."""
    found = public_names.find(name, module)
    assert found is not None, name
    if isinstance(found.node, ast.FunctionDef):
        return f".. autofunction:: {name}"
    if isinstance(found.node, ast.AnnAssign):
        value = ast.unparse(found.node.value) if found.node.value else ""
        return block(
            f".. py:data:: {name}", [f":value: {value}", "", plain(public_names.said_of(found))]
        )
    hidden = ", ".join(field.name for field in public_names.fields(found))
    options = [":members:", f":special-members: {', '.join(SHOWN)}"]
    options += [f":exclude-members: {hidden}"] if hidden else []
    return block(f".. autoclass:: {name}", [*options, *inherited_table(name, found)])


def inherited_table(name: str, found: Definition) -> list[str]:
    """The method `table` of a base, if it has options beyond those of every scheduler."""
    *bases, own = public_names.lineage(found)
    if any(method.name == "table" for method in public_names.methods(own)):
        return []
    tables = [m for one in bases for m in public_names.methods(one) if m.name == "table"]
    return ["", f".. automethod:: {name}.table"] if tables and tables[-1].args.kwonlyargs else []


def block(head: str, lines: list[str]) -> str:
    gap = [] if lines[0].startswith(":") else [""]
    return "\n   ".join([head, *gap, *lines])


# Docstrings.


def docstring(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Formulas as literal blocks; the fields of a class with those of its bases."""
    found = definition(obj) if what in ("class", "exception") else None
    lines[:] = described("\n".join(lines), found)


def described(text: str, found: Definition | None) -> list[str]:
    """A docstring as reStructuredText: the sections as they are, for napoleon."""
    fields = public_names.fields(found) if found else []
    parts: list[str] = []
    for title, lines in public_names.sections(text):
        if not title:
            parts += prose(lines)
        elif not (title == "Attributes" and fields):
            names = re.sub(r"(?m)^[\\*]+(?=\w+: )", unescaped, plain("\n".join(lines)))
            parts += ["", f"{title}:", *(f"    {line}" for line in names.splitlines())]
    if fields:
        parts += ["", "**Fields**", ""]
        parts += [f"- ``{f.declared}``" + (f": {plain(f.text)}" if f.text else "") for f in fields]
    return [*parts, ""]


def prose(lines: list[str]) -> list[str]:
    """Paragraphs; indented ones are formulas."""
    found: list[str] = []
    for paragraph in "\n".join(lines).strip("\n").split("\n\n"):
        if paragraph.startswith("    "):
            found += ["::", "", *paragraph.splitlines(), ""]
        else:
            shown = paragraph if paragraph.startswith(">>>") else plain(paragraph)
            found += [*shown.splitlines(), ""]
    return found


def plain(text: str) -> str:
    """Text with code in backticks: a name may become a link, other code and all signs stay."""
    parts = re.split(r"`([^`]+)`", text)
    parts[::2] = [re.sub(r"([\\*|]|(?<=\w)_(?!\w))", r"\\\1", part) for part in parts[::2]]
    parts[1::2] = [
        f"`{code}`" if re.fullmatch(r"[\w.]+", code) else f"``{code}``" for code in parts[1::2]
    ]
    return "".join(parts)


def unescaped(found: re.Match[str]) -> str:
    return found[0].replace("\\", "")


def signature(
    app: Sphinx,
    what: str,
    name: str,
    obj: Any,
    options: Any,
    signature: str | None,
    returns: str | None,
) -> tuple[str, str | None] | None:
    """Readable types; nothing for a class with fields, which are listed with their defaults."""
    if signature is None:
        return None
    found = definition(obj) if what == "class" else None
    if found and public_names.fields(found):
        return "", None
    return readable(signature), readable(returns) if returns else None


def readable(types: str) -> str:
    """An array on the device or on the host is one type: `Float[Array, 'b h w c']`."""
    for written in ARRAY_LIKE:
        types = types.replace(written, "ArrayLike")
    types = types.replace("jaxlib._jax.Array", "Array")
    return re.sub(r"(\w+\[)Array(, '[^']*'\]) \| \1ndarray\2", r"\1Array\2", types)


def definition(obj: type) -> Definition | None:
    if not obj.__module__.startswith(PACKAGE):
        return None
    return public_names.find(obj.__name__, obj.__module__)


# References.


@functools.cache
def public() -> dict[str, str]:
    """From the place where a public name is defined to the name: ddpm_jax.tables.table.Table."""
    found: dict[str, str] = {}
    for module in MODULES:
        for name in chain(*public_names.groups(module).values()):
            place = public_names.find(name, module)
            assert place is not None, name
            found[f"{public_names.module_of(place.file)}.{name}"] = f"{module}.{name}"
    return found


def missing(
    app: Sphinx, env: BuildEnvironment, node: addnodes.pending_xref, content: nodes.TextElement
) -> nodes.reference | None:
    """A type in a signature, which is named after the module that defines it."""
    target = public().get(node.get("reftarget", ""))
    if node.get("refdomain") != "py" or target is None:
        return None
    domain = env.domains.python_domain
    return domain.resolve_xref(env, node["refdoc"], app.builder, "obj", target, node, content)


class LinksToNames(SphinxPostTransform):
    """Links of the pages to public names, before MyST looks for a heading of that name."""

    default_priority = 8

    def run(self, **kwargs: Any) -> None:
        names = {name.removeprefix(f"{PACKAGE}.") for name in public().values()}
        for node in self.document.findall(addnodes.pending_xref):
            anchor = node.get("reftargetid")
            if node.get("refdomain") == "doc" and anchor in names:
                node.update_all_atts({"refdomain": "py", "reftype": "obj"}, replace=True)
                node["reftarget"] = f"{PACKAGE}.{anchor}"


def setup(app: Sphinx) -> ExtensionMetadata:
    app.add_directive("public", Public)
    app.add_post_transform(LinksToNames)
    app.connect("autodoc-process-docstring", docstring, priority=400)  # before napoleon
    app.connect("autodoc-process-signature", signature)
    app.connect("missing-reference", missing)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
