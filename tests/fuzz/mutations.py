"""Hypothesis' strategies for files that are nearly right: a good one, changed in a few places."""

import json
from typing import Any

from hypothesis import strategies as st

ODD: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2, 3, 7, 255, 2**31, 2**63, -(2**63), 10**30, 0.5, -0.0, 1e308,
    1e-320, float("nan"), float("inf"), -float("inf"), "", "a", "..", "../../etc/passwd",
    "/etc/passwd", "\0", "\ud800", "a" * 1000, [], {}, [[]], [None], [0], [-1, 2], ["a", "b"],
    {"a": 1}, {"_class_name": 1},
)  # fmt: skip
"""Values in place of the right ones."""
NUMBERS = (0, 1, 127, 128, 255, 256, 2**15, 2**16 - 1, 2**31, 2**32 - 1, 2**63, 2**64 - 1)


@st.composite
def changed_bytes(draw: st.DrawFn, good: bytes, marks: tuple[bytes, ...] = ()) -> bytes:
    """Up to four edits: bytes replaced, cut out, doubled or put in; a number; the end cut off."""
    data = bytearray(good)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, max(len(data) - 1, 0)))
        length = draw(st.integers(1, 40))
        match draw(st.sampled_from("flip cut double put number mark end".split())):
            case "flip":
                data[at : at + 1] = bytes([draw(st.integers(0, 255))])
            case "cut":
                del data[at : at + length]
            case "double":
                data[at:at] = data[at : at + length]
            case "put":
                data[at:at] = draw(st.binary(min_size=1, max_size=16))
            case "number":
                size = draw(st.sampled_from((2, 4, 8)))
                value = draw(st.sampled_from(NUMBERS)) % 256**size
                data[at : at + size] = value.to_bytes(
                    size, draw(st.sampled_from(["little", "big"]))
                )
            case "mark" if marks:
                data[at : at + draw(st.integers(0, 4))] = draw(st.sampled_from(marks))
            case _:
                del data[at:]
    return bytes(data)


def nodes(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The paths of all values in a JSON value, the inner ones too."""
    inner = (
        value.items()
        if isinstance(value, dict)
        else enumerate(value)
        if isinstance(value, list)
        else ()
    )
    return [path] + [one for key, part in inner for one in nodes(part, (*path, key))]


@st.composite
def changed_json(draw: st.DrawFn, good: Any, names: tuple[str, ...] = ()) -> bytes:
    """Up to three edits of a JSON value: entries replaced, removed, renamed, added or nested."""
    value = json.loads(json.dumps(good))
    for _ in range(draw(st.integers(1, 3))):
        path = draw(st.sampled_from(nodes(value)))
        odd = draw(st.sampled_from(ODD) | st.integers() | st.floats() | st.text(max_size=8))
        odd = json.loads(json.dumps(odd))  # a copy: a value may be put in twice
        if not path:
            if draw(st.integers(0, 9)) == 0:
                value = odd
            continue
        parent = value
        for key in path[:-1]:
            parent = parent[key]
        match draw(st.sampled_from("replace remove rename add nest repeat".split())):
            case "replace":
                parent[path[-1]] = odd
            case "remove":
                del parent[path[-1]]
            case "rename" if isinstance(parent, dict):
                parent[draw(st.sampled_from(names) if names else st.text())] = parent.pop(path[-1])
            case "add" if isinstance(parent, dict):
                parent[draw(st.sampled_from(names) if names else st.text())] = odd
            case "nest":
                parent[path[-1]] = [parent[path[-1]]]
            case _ if isinstance(parent, list):
                parent.extend(parent[: draw(st.integers(1, 8))])
            case _:
                parent[path[-1]] = odd
    return json.dumps(value).encode()
