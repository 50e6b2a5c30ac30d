"""The public names of the package, from its sources: groups, definitions, fields of classes.

The site (`reference.py`) and `tests/test_docs.py` read it. It parses the sources and imports none.
"""

import ast
import functools
import re
from pathlib import Path
from typing import NamedTuple

REPOSITORY = Path(__file__).resolve().parent.parent
PACKAGE = "ddpm_jax"
MODULES = ("ddpm_jax", "ddpm_jax.training", "ddpm_jax.training.data")
"""The modules whose `__all__` is documented."""
SECTIONS = ("Args", "Attributes", "Returns", "Raises")

Node = ast.ClassDef | ast.FunctionDef | ast.AnnAssign


class Definition(NamedTuple):
    """A class, function or alias, and its file."""

    node: Node
    file: Path


class FieldDoc(NamedTuple):
    """A field of a class: its declaration and its documentation."""

    name: str
    declared: str
    text: str


# Finding definitions.


def groups(module: str) -> dict[str, list[str]]:
    """The names of `__all__` under its comments."""
    source = module_file(module).read_text(encoding="utf-8")
    listed = source[source.index("__all__ = [") :]
    found: dict[str, list[str]] = {}
    title = ""
    for line in listed[: listed.index("]")].splitlines()[1:]:
        if line.strip().startswith("#"):
            title = line.strip("# ")
        names = [name for name in re.findall(r'"(\w+)"', line) if not name.startswith("_")]
        found.setdefault(title, []).extend(names)
    return found


def find(name: str, module: str) -> Definition | None:
    """The definition of a name that a module uses, `Name` or `module.Name`, if it is in the
    package.
    """
    file = module_file(module)
    head, _, rest = name.partition(".")
    body = statements(file)
    later = [one for node in body if isinstance(node, ast.If) for one in node.body]
    for node in [
        *body,
        *later,
    ]:  # an if block: for type checkers
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name == name:
            return Definition(node, file)
        if isinstance(node, ast.AnnAssign) and ast.unparse(node.target) == name:
            return Definition(node, file)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(PACKAGE):
            for alias in node.names:
                if head == (alias.asname or alias.name):
                    source = node.module or ""
                    return find(rest, f"{source}.{head}") if rest else find(alias.name, source)
    return None


@functools.cache
def statements(file: Path) -> list[ast.stmt]:
    """The statements of a module."""
    return ast.parse(file.read_text(encoding="utf-8")).body


def module_file(module: str) -> Path:
    path = REPOSITORY.joinpath(*module.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def module_of(file: Path) -> str:
    parts = file.relative_to(REPOSITORY).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def lineage(found: Definition) -> list[Definition]:
    """A class and its bases within the package, the root first."""
    bases: list[Definition] = []
    for base in found.node.bases if isinstance(found.node, ast.ClassDef) else []:
        parent = find(ast.unparse(base), module_of(found.file))
        bases += lineage(parent) if parent else []
    return [*bases, found]


# What is said of them.


def said_of(found: Definition) -> str:
    """The docstring; for an alias the string below it."""
    if not isinstance(found.node, ast.AnnAssign):
        return ast.get_docstring(found.node) or ""
    body = statements(found.file)
    at = [ast.dump(node) for node in body].index(ast.dump(found.node))
    return literal_text(body[at + 1])


def methods(found: Definition) -> list[ast.FunctionDef]:
    """The methods that a class itself defines."""
    body = found.node.body if isinstance(found.node, ast.ClassDef) else []
    return [item for item in body if isinstance(item, ast.FunctionDef)]


def fields(found: Definition) -> list[FieldDoc]:
    """The fields of a dataclass, named tuple or Flax module, those of its bases first."""
    fields: dict[str, FieldDoc] = {}
    for node, _ in lineage(found):
        assert isinstance(node, ast.ClassDef)
        said = attributes_section(ast.get_docstring(node) or "")
        for item, after in zip(node.body, [*node.body[1:], None], strict=True):
            if not isinstance(item, ast.AnnAssign) or not isinstance(item.target, ast.Name):
                continue
            name = item.target.id
            if "ClassVar" in ast.unparse(item.annotation):
                fields.pop(name, None)  # a field of a base that this class has not
                continue
            if name.startswith("_"):
                continue
            before = fields.pop(name).text if name in fields else ""
            text = said.get(name) or literal_text(after) or before
            fields[name] = FieldDoc(name, ast.unparse(item), text)
    return list(fields.values())


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


def sections(docstring: str) -> list[tuple[str, list[str]]]:
    """The docstring as ("", lines) and (section title, its lines, dedented)."""
    found: list[tuple[str, list[str]]] = [("", [])]
    for line in docstring.splitlines():
        title = line.removesuffix(":")
        if line.endswith(":") and title in SECTIONS:
            found.append((title, []))
        elif found[-1][0] and line and not line.startswith(" "):
            found.append(("", [line]))
        else:
            found[-1][1].append(line[4:] if found[-1][0] else line)
    return found


def items(lines: list[str]) -> list[tuple[str, str]]:
    """`name: text` entries, each on one or more lines."""
    found: list[tuple[str, str]] = []
    for line in lines:
        start = re.match(r"(\*{0,2}\w+): (.*)", line)
        if start:
            found.append((start[1], start[2]))
        elif line.strip() and found:
            found[-1] = (found[-1][0], f"{found[-1][1]} {line.strip()}")
    return found
