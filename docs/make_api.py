"""Writes docs/api.md: signatures and docstrings of all names in the `__all__` of public modules.

    python docs/make_api.py

It parses the sources and does not import them. `MODULES` lists the modules. The comments and the
order of `__all__` give the groups. A test fails if the page is not up to date.
"""

import ast
import re
from pathlib import Path
from typing import NamedTuple

from docstring_text import bullet, docstring_text, items, sections

HERE = Path(__file__).resolve().parent
PACKAGE = HERE.parent / "ddpm_jax"
SHOWN = ("__call__", "__getitem__", "__next__")
"""Special methods that are documented."""
WIDTH = 88

INTRODUCTION = """\
# API

Generated from the docstrings by `python docs/make_api.py`: edit the docstrings. Names are in
`ddpm_jax`, imported as `dj`. Names with the prefix `training.` are in `ddpm_jax.training`, which
must be imported itself. Arrays are NHWC: (B, H, W, C) is batch, height, width, channels.
"""


class Module(NamedTuple):
    """A module whose `__all__` is documented.

    Attributes:
        path: its folder in the package.
        prefix: prefix of its names.
        title: prefix of the names of its groups.
    """

    path: str
    prefix: str
    title: str

    @property
    def file(self) -> Path:
        return PACKAGE / self.path / "__init__.py"


MODULES = (
    Module("", "", ""),
    Module("training", "training.", "training: "),
    Module("training/data", "training.data.", "training data: "),
)


class Definition(NamedTuple):
    """A class, function or alias, and its file."""

    node: ast.ClassDef | ast.FunctionDef | ast.AnnAssign
    file: Path


class FieldDoc(NamedTuple):
    """A field of a class: its declaration and its documentation."""

    name: str
    declared: str
    text: str


def main() -> None:
    (HERE / "api.md").write_text(page(), encoding="utf-8")


def page() -> str:
    """The whole page."""
    chosen = [(module, *group) for module in MODULES for group in groups(module)]
    parts = [INTRODUCTION]
    for module, title, names in chosen:
        links = ", ".join(f"[`{module.prefix}{name}`](#{module.prefix}{name})" for name in names)
        parts.append(f"- {heading(module, title)}: {links}")
    parts.append("")
    for module, title, names in chosen:
        parts.append(f"## {heading(module, title)}\n")
        parts += [entry(name, module) for name in names]
    return "\n".join(parts).rstrip() + "\n"


def heading(module: Module, title: str) -> str:
    text = module.title + title
    return text[0].upper() + text[1:]


# Finding definitions.


def groups(module: Module) -> list[tuple[str, list[str]]]:
    """The names of `__all__` under its comments."""
    source = module.file.read_text(encoding="utf-8")
    listed = source[source.index("__all__ = [") :]
    found: list[tuple[str, list[str]]] = []
    for line in listed[: listed.index("]")].splitlines()[1:]:
        if line.strip().startswith("#"):
            found.append((line.strip("# "), []))
        found[-1][1].extend(n for n in re.findall(r'"(\w+)"', line) if not n.startswith("_"))
    return found


def find(name: str, file: Path) -> Definition | None:
    """The definition of a name that a file uses, if it is in the package."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    for node in tree.body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name == name:
            return Definition(node, file)
        if isinstance(node, ast.AnnAssign) and ast.unparse(node.target) == name:
            return Definition(node, file)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(PACKAGE.name):
            for alias in node.names:
                if name == (alias.asname or alias.name):
                    return find(alias.name, module_file(node.module or ""))
    return None


def module_file(module: str) -> Path:
    path = PACKAGE.parent.joinpath(*module.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def lineage(definition: Definition) -> list[Definition]:
    """A class and its bases within the package, the root first."""
    bases: list[Definition] = []
    for base in definition.node.bases if isinstance(definition.node, ast.ClassDef) else []:
        found = find(ast.unparse(base), definition.file)
        bases += lineage(found) if found else []
    return [*bases, definition]


# Text of definitions.


def entry(name: str, module: Module) -> str:
    """A name's heading, signature and docstring; for a class also its fields and methods."""
    found = find(name, module.file)
    assert found is not None, name
    node, full = found.node, module.prefix + name
    head = f'<a id="{full}"></a>\n\n### `{full}`\n'
    if isinstance(node, ast.AnnAssign):
        shown = f"{name} = {ast.unparse(node.value)}" if node.value else name
        return "\n".join([head, "```text", shown, "```\n", said_of(found) + "\n"])
    if isinstance(node, ast.FunctionDef):
        return "\n".join([head, *function_text(name, node)])
    return "\n".join([head, *class_entry(name, found, full)])


def class_entry(name: str, found: Definition, full: str) -> list[str]:
    """Signature, docstring, fields and methods of a class."""
    node = found.node
    assert isinstance(node, ast.ClassDef), name
    declared = fields(found)
    parts = ["```text", class_signature(name, found, declared), "```\n"]
    parts.append(class_text(node, declared))
    if declared:
        parts += ["Fields:\n", *(bullet(f"`{f.declared}`", f.text) for f in declared), ""]
    for method in methods(found):
        parts += [f"#### `{full}.{method.name}`\n", *function_text(method.name, method)]
    return parts


def said_of(found: Definition) -> str:
    """The docstring; for an alias the string below it."""
    if not isinstance(found.node, ast.AnnAssign):
        return ast.get_docstring(found.node) or ""
    body = ast.parse(found.file.read_text(encoding="utf-8")).body
    at = [ast.dump(node) for node in body].index(ast.dump(found.node))
    return literal_text(body[at + 1])


def class_text(node: ast.ClassDef, declared: list[FieldDoc]) -> str:
    """The docstring. Its attributes are left out if they are listed with the fields."""
    without = "Attributes" if declared else ""
    return docstring_text(ast.get_docstring(node) or "", without)


def function_text(name: str, node: ast.FunctionDef) -> list[str]:
    if any(ast.unparse(d) in ("property", "cached_property") for d in node.decorator_list):
        shown = f"{name}: {ast.unparse(node.returns)}" if node.returns else name
    else:
        end = f" -> {ast.unparse(node.returns)}" if node.returns else ""
        shown = signature(name, arguments(node), end)
    return ["```text", shown, "```\n", docstring_text(ast.get_docstring(node) or "")]


def methods(definition: Definition) -> list[ast.FunctionDef]:
    """Public methods with a docstring of the class itself, and a `table` with more options."""
    own, *bases = reversed(lineage(definition))
    found = own_methods(own.node)
    if any(method.name == "table" for method in found):
        return found
    tables = [m for base in bases for m in own_methods(base.node) if m.name == "table"]
    return found + [method for method in tables[:1] if method.args.kwonlyargs]


def own_methods(node: ast.AST) -> list[ast.FunctionDef]:
    """Public methods with a docstring, defined in the class itself."""
    return [
        item
        for item in (node.body if isinstance(node, ast.ClassDef) else [])
        if isinstance(item, ast.FunctionDef)
        and (not item.name.startswith("_") or item.name in SHOWN)
        and ast.get_docstring(item)
    ]


def fields(definition: Definition) -> list[FieldDoc]:
    """The fields of a dataclass, named tuple or Flax module, those of its bases first."""
    found: dict[str, FieldDoc] = {}
    for node, _ in lineage(definition):
        assert isinstance(node, ast.ClassDef)
        said = attributes_section(ast.get_docstring(node) or "")
        for item, after in zip(node.body, [*node.body[1:], None], strict=True):
            if not isinstance(item, ast.AnnAssign) or not isinstance(item.target, ast.Name):
                continue
            name = item.target.id
            if "ClassVar" in ast.unparse(item.annotation):
                found.pop(name, None)  # a field of a base that this class has not
                continue
            if name.startswith("_"):
                continue
            below = literal_text(after)
            before = found.pop(name).text if name in found else ""
            found[name] = FieldDoc(name, ast.unparse(item), said.get(name) or below or before)
    return list(found.values())


def literal_text(node: ast.stmt | None) -> str:
    """The string that documents the field above it."""
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
        return " ".join(str(node.value.value).split())
    return ""


def attributes_section(docstring: str) -> dict[str, str]:
    for title, lines in sections(docstring):
        if title == "Attributes":
            return dict(items(lines))
    return {}


def class_signature(name: str, definition: Definition, declared: list[FieldDoc]) -> str:
    if declared:
        return f"class {name}"
    for node, _ in reversed(lineage(definition)):
        assert isinstance(node, ast.ClassDef)
        for item in node.body:
            if isinstance(item, ast.FunctionDef) and item.name == "__init__":
                return "class " + signature(name, arguments(item), "")
    return f"class {name}"


# Text.


def arguments(node: ast.FunctionDef) -> list[str]:
    """Each argument as in the source, without self and cls."""
    spec, shown = node.args, []
    positional = [*spec.posonlyargs, *spec.args]
    missing = len(positional) - len(spec.defaults)
    for argument, default in zip(positional, [None] * missing + spec.defaults, strict=True):
        if argument.arg not in ("self", "cls"):
            shown.append(argument_text(argument, default))
    if spec.vararg:
        shown.append(f"*{ast.unparse(spec.vararg)}")
    elif spec.kwonlyargs:
        shown.append("*")
    shown += map(argument_text, spec.kwonlyargs, spec.kw_defaults)
    return shown + ([f"**{ast.unparse(spec.kwarg)}"] if spec.kwarg else [])


def argument_text(argument: ast.arg, default: ast.expr | None) -> str:
    text = ast.unparse(argument)
    return text if default is None else f"{text} = {ast.unparse(default)}"


def signature(name: str, shown: list[str], end: str) -> str:
    """On one line, or with one argument per line."""
    short = f"{name}({', '.join(shown)}){end}"
    lines = "".join(f"    {argument},\n" for argument in shown)
    return short if len(short) <= WIDTH else f"{name}(\n{lines}){end}"


if __name__ == "__main__":
    main()
