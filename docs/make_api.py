"""Writes docs/api.md: signatures and docstrings of what `ddpm_jax.__all__` names.

    python docs/make_api.py

It reads the sources and imports nothing of them. Groups and their order are the comments and the
order of `__all__`. A test fails when the page is not what this script writes.
"""

import ast
import re
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).resolve().parent
PACKAGE = HERE.parent / "ddpm_jax"
SECTIONS = ("Args", "Attributes", "Returns", "Raises")
WIDTH = 88

INTRODUCTION = """\
# API

Made from the docstrings by `python docs/make_api.py`: edit those. Everything here is in `ddpm_jax`,
imported as `dj`. Arrays are NHWC: (B, H, W, C) is batch, height, width, channels.
"""


class Definition(NamedTuple):
    """A class, function or alias, and the file that it stands in."""

    node: ast.ClassDef | ast.FunctionDef | ast.AnnAssign
    file: Path


class FieldDoc(NamedTuple):
    """A field of a class: as it is declared, and what is said of it."""

    name: str
    declared: str
    text: str


def main() -> None:
    (HERE / "api.md").write_text(page(), encoding="utf-8")


def page() -> str:
    """The whole page."""
    chosen = groups()
    parts = [INTRODUCTION]
    for title, names in chosen:
        links = ", ".join(f"[`{name}`](#{name})" for name in names)
        parts.append(f"- {title.capitalize()}: {links}")
    parts.append("")
    for title, names in chosen:
        parts.append(f"## {title.capitalize()}\n")
        parts += [entry(name) for name in names]
    return "\n".join(parts).rstrip() + "\n"


# Finding definitions.


def groups() -> list[tuple[str, list[str]]]:
    """The names of `__all__` under its comments."""
    source = (PACKAGE / "__init__.py").read_text(encoding="utf-8")
    listed = source[source.index("__all__ = [") :]
    found: list[tuple[str, list[str]]] = []
    for line in listed[: listed.index("]")].splitlines()[1:]:
        if line.strip().startswith("#"):
            found.append((line.strip("# "), []))
        found[-1][1].extend(n for n in re.findall(r'"(\w+)"', line) if not n.startswith("_"))
    return found


def find(name: str, file: Path) -> Definition | None:
    """Where a name that a file uses is defined, if that is in the package."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    for node in tree.body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name == name:
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


# What is said of them.


def entry(name: str) -> str:
    """A name's heading, signature and docstring; for a class also its fields and methods."""
    found = find(name, PACKAGE / "__init__.py")
    assert found is not None, name
    node, head = found.node, f'<a id="{name}"></a>\n\n### `{name}`\n'
    if isinstance(node, ast.FunctionDef):
        return "\n".join([head, *function_text(name, node)])
    assert isinstance(node, ast.ClassDef), name
    declared = fields(found)
    parts = [head, "```text", class_signature(name, found, declared), "```\n"]
    parts.append(class_text(node, declared))
    if declared:
        parts += ["Fields:\n", *(bullet(f"`{f.declared}`", f.text) for f in declared), ""]
    for method in methods(node):
        title = f"{name}.{method.name}"
        parts += [f"#### `{title}`\n", *function_text(method.name, method)]
    return "\n".join(parts)


def class_text(node: ast.ClassDef, declared: list[FieldDoc]) -> str:
    """The docstring; its attributes only where they do not stand beside the fields."""
    without = "Attributes" if declared else ""
    return docstring_text(ast.get_docstring(node) or "", without)


def function_text(name: str, node: ast.FunctionDef) -> list[str]:
    if any(ast.unparse(d) in ("property", "cached_property") for d in node.decorator_list):
        shown = f"{name}: {ast.unparse(node.returns)}" if node.returns else name
    else:
        end = f" -> {ast.unparse(node.returns)}" if node.returns else ""
        shown = signature(name, arguments(node), end)
    return ["```text", shown, "```\n", docstring_text(ast.get_docstring(node) or "")]


def methods(node: ast.ClassDef) -> list[ast.FunctionDef]:
    """Public methods with a docstring that the class itself defines."""
    return [
        item
        for item in node.body
        if isinstance(item, ast.FunctionDef)
        and (not item.name.startswith("_") or item.name == "__call__")
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
            if name.startswith("_") or "ClassVar" in ast.unparse(item.annotation):
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
    """Each argument as it is written, without self and cls."""
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
    """On one line, or one argument a line."""
    short = f"{name}({', '.join(shown)}){end}"
    lines = "".join(f"    {argument},\n" for argument in shown)
    return short if len(short) <= WIDTH else f"{name}(\n{lines}){end}"


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
    """`name: text` entries, each possibly over several lines."""
    found: list[tuple[str, str]] = []
    for line in lines:
        start = re.match(r"(\*{0,2}\w+): (.*)", line)
        if start:
            found.append((start[1], start[2]))
        elif line.strip() and found:
            found[-1] = (found[-1][0], f"{found[-1][1]} {line.strip()}")
    return found


def docstring_text(docstring: str, without: str = "") -> str:
    """The docstring as Markdown; the section called `without` is left out."""
    parts: list[str] = []
    for title, lines in sections(docstring):
        if not title:
            parts.append(prose(lines))
        elif title != without:
            entries = items(lines)
            text = " ".join(line.strip() for line in lines if line.strip())
            parts.append(f"{title}:" + ("\n" if entries else f" {text}\n"))
            parts += [bullet(f"`{name}`", said) for name, said in entries]
            parts += [""] if entries else []
    return "\n".join(part for part in parts if part is not None).rstrip() + "\n"


def prose(lines: list[str]) -> str:
    """Paragraphs; doctests and indented formulas as blocks."""
    shown: list[str] = []
    for paragraph in "\n".join(lines).strip().split("\n\n"):
        if paragraph.lstrip().startswith(">>>"):
            shown.append(f"```pycon\n{paragraph}\n```")
        elif paragraph.startswith("    "):
            shown.append(f"```text\n{paragraph}\n```")
        else:
            shown.append(paragraph)
    return "\n\n".join(shown) + "\n"


def bullet(name: str, text: str) -> str:
    return f"- {name}: {text}" if text else f"- {name}"


if __name__ == "__main__":
    main()
