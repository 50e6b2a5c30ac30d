"""Docstrings as Markdown, for make_api.py."""

import re

SECTIONS = ("Args", "Attributes", "Returns", "Raises")


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
