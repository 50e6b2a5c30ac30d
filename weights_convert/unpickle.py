"""Read the pickle in a torch .bin file as data. Nothing from the file is imported, called or
executed.

`pickle.load` calls any callable that a file names. This reader interprets the opcodes itself
(`pickletools.genops` only splits the bytes), has its own stack, and has no code that imports or
calls. A file may name only the few globals that a state dict of tensors needs. Any other global is
an error that names it, or, in a checkpoint of a training program, an `Inert` placeholder.
"""

import pickletools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np

from weights_convert.tensors import BFLOAT16, FLOAT8

STORAGES: dict[str, np.dtype[Any]] = {
    "torch DoubleStorage": np.dtype(np.float64),
    "torch FloatStorage": np.dtype(np.float32),
    "torch HalfStorage": np.dtype(np.float16),
    "torch BFloat16Storage": BFLOAT16,
    "torch LongStorage": np.dtype(np.int64),
    "torch IntStorage": np.dtype(np.int32),
    "torch ShortStorage": np.dtype(np.int16),
    "torch CharStorage": np.dtype(np.int8),
    "torch ByteStorage": np.dtype(np.uint8),
    "torch BoolStorage": np.dtype(np.bool_),
    "torch.storage UntypedStorage": np.dtype(np.uint8),
}
DTYPES = {f"torch {name}": dtype for name, dtype in FLOAT8.items()}
"""The dtypes without a storage class: their tensors name them, and have untyped storages."""


@dataclass(frozen=True)
class Global:
    """A global that the file names, "module attribute". It is only a name and is never resolved."""

    name: str


@dataclass(frozen=True)
class Inert:
    """What stands in place of a global that is not needed, and of all that is made with it."""

    name: str


@dataclass(frozen=True)
class Storage:
    """One record of the zip: `numel` items of `dtype` in data/`key`."""

    key: str
    dtype: np.dtype[Any]
    numel: int


@dataclass(frozen=True)
class StridedTensor:
    """A view of a storage. Offset and strides count items, as in torch."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def loads(
    data: bytes | BinaryIO, *, inert: bool = False, storages: list[Storage] | None = None
) -> Any:
    """The object in a pickle: dicts, lists, tuples, numbers, strings and `StridedTensor`.

    Args:
        data: the pickle, or a file that is read from its position to the end of a pickle.
        inert: a global that no state dict needs becomes `Inert`, and so does everything that is
            called, built or filled with it. Without it, such a global is an error.
        storages: gets every storage that the pickle refers to.

    Raises:
        ValueError: the pickle is damaged, or it uses a global or an opcode that no state dict
            needs.
    """
    machine = _Machine(inert, [] if storages is None else storages)
    try:
        for opcode, argument, _ in _opcodes(data):
            if opcode.name == "STOP":
                return machine.stack.pop()
            machine.run(opcode.name, argument)
    except (IndexError, KeyError, TypeError, RecursionError):
        raise ValueError("its pickle is damaged") from None
    raise ValueError("its pickle is damaged")  # genops raises before this for a pickle without STOP


def _opcodes(data: bytes | BinaryIO) -> Iterator[tuple[Any, Any, Any]]:
    try:
        yield from pickletools.genops(data)
    except (ValueError, MemoryError, OverflowError) as error:  # a length of terabytes
        raise ValueError(f"its pickle is damaged or truncated: {error}") from None


class _Machine:
    """The stack, marks and memo while a pickle is read."""

    def __init__(self, inert: bool, storages: list[Storage]) -> None:
        self.inert, self.storages = inert, storages
        self.stack: list[Any] = []
        self.marked: list[list[Any]] = []
        self.memo: dict[int, Any] = {}

    def run(self, opcode: str, argument: Any) -> None:
        if opcode in _LITERALS:
            self.stack.append(argument)
        elif opcode in _ACTIONS:
            _ACTIONS[opcode](self, argument)
        elif self.inert and opcode in _OF_OBJECTS:
            _OF_OBJECTS[opcode](self, argument)
        else:
            raise ValueError(f"its pickle uses the opcode {opcode}, which no state dict needs")

    def pop_mark(self) -> list[Any]:
        """Remove and return the items above the last mark."""
        items, self.stack = self.stack, self.marked.pop()
        return items

    def mark(self, _: Any) -> None:
        self.marked.append(self.stack)
        self.stack = []

    def pop(self, _: Any) -> None:
        self.stack.pop()

    def put(self, index: Any) -> None:
        self.memo[int(index)] = self.stack[-1]

    def memoize(self, _: Any) -> None:
        self.memo[len(self.memo)] = self.stack[-1]

    def get(self, index: Any) -> None:
        self.stack.append(self.memo[int(index)])

    def tuple_of(self, items: list[Any]) -> None:
        self.stack.append(tuple(items))

    def pop_last(self, count: int) -> list[Any]:
        """Remove and return so many items."""
        return [self.stack.pop() for _ in range(count)][::-1]

    def set_items(self, items: list[Any]) -> None:
        if len(items) % 2:
            raise TypeError
        if type(self.stack[-1]) is Inert:
            return
        entries = _exactly(self.stack[-1], dict)
        entries.update((_key(one), value) for one, value in zip(*[iter(items)] * 2, strict=True))

    def append_items(self, items: list[Any]) -> None:
        if type(self.stack[-1]) is Inert:
            return
        _exactly(self.stack[-1], list).extend(items)

    def named(self, name: str) -> None:
        known = name in STORAGES or name in _BUILDERS or name in DTYPES
        if not known and not self.inert:
            reason = _REFUSED.get(name, "which no state dict needs")
            dotted = name.replace(" ", ".")
            raise ValueError(f"its pickle uses {dotted}, {reason}; nothing was executed")
        self.stack.append(Global(name) if known else Inert(name))

    def stack_named(self, _: Any) -> None:
        module, attribute = (_exactly(one, str) for one in self.pop_last(2))
        self.named(f"{module} {attribute}")

    def reduce(self, _: Any) -> None:
        arguments, function = self.stack.pop(), self.stack.pop()
        parts = (function, *_exactly(arguments, tuple))
        if placeholders := [one for one in parts if type(one) is Inert]:
            self.stack.append(placeholders[0])
        else:
            self.stack.append(_BUILDERS[_exactly(function, Global).name](*arguments))

    def build(self, _: Any) -> None:
        """Ignore `_metadata` of a state dict: it contains module versions, which are not needed."""
        self.stack.pop()
        if type(self.stack[-1]) is not Inert:
            _exactly(self.stack[-1], dict)

    def instance(self, parts: list[Any]) -> None:
        """An object of a class, which is the first of the parts."""
        kind = parts[0]
        if type(kind) not in (Global, Inert):
            raise TypeError
        self.stack.append(Inert(kind.name))

    def persistent(self, _: Any) -> None:
        storage = _storage(self.stack.pop())
        if isinstance(storage, Storage):
            self.storages.append(storage)
        self.stack.append(storage)


def _exactly(value: Any, kind: type) -> Any:
    """The value, if its type is exactly `kind`. The pickle may not change anything else."""
    if type(value) is not kind:
        raise TypeError
    return value


def _ordered_dict(pairs: Any = ()) -> dict[Any, Any]:
    return {_key(one): value for one, value in pairs}


def _key(value: Any) -> Any:
    """A key of a dict. Of nested tuples the hash takes as long as all their paths, which may be
    astronomically many.
    """
    if isinstance(value, tuple | dict | list):
        raise TypeError
    return value


def _tensor(
    storage: Any, offset: Any, shape: Any, strides: Any, requires_grad: Any, hooks: Any, *_: Any
) -> StridedTensor:
    """`torch._utils._rebuild_tensor_v2`. The tensor must lie inside its storage."""
    del requires_grad, hooks  # a checkpoint needs neither
    shape, strides = tuple(shape), tuple(strides)
    numbers = (offset, *shape, *strides)
    if not all(type(n) is int for n in numbers):
        raise TypeError
    if len(shape) != len(strides) or min(numbers) < 0:
        raise ValueError(
            f"a tensor has an invalid offset {offset}, shape {shape} or strides {strides}"
        )
    tensor = StridedTensor(_exactly(storage, Storage), offset, shape, strides)
    if offset + extent(tensor) > storage.numel:
        raise ValueError(
            f"a tensor of shape {shape} reaches beyond its storage of {storage.numel} items"
        )
    return tensor


def _tensor_of_dtype(
    storage: Any, offset: Any, shape: Any, strides: Any, grad: Any, hooks: Any, dtype: Any, *_: Any
) -> StridedTensor:
    """`torch._utils._rebuild_tensor_v3`: the tensor names its dtype, of one byte."""
    name = _exactly(dtype, Global).name
    if name not in DTYPES:
        raise TypeError
    storage = _exactly(storage, Storage)
    typed = Storage(storage.key, DTYPES[name], storage.numel)  # an untyped storage counts bytes
    return _tensor(typed, offset, shape, strides, grad, hooks)


def _parameter(data: Any, *_: Any) -> StridedTensor:
    return _exactly(data, StridedTensor)


def extent(tensor: StridedTensor) -> int:
    """The number of storage items that a tensor spans from its offset; 0 if it is empty."""
    if 0 in tensor.shape:
        return 0
    return 1 + sum(
        (length - 1) * stride for length, stride in zip(tensor.shape, tensor.strides, strict=True)
    )


def _storage(reference: Any) -> Storage | Inert:
    """The storage of a persistent id ("storage", type, key, device, number of items), and in old
    files None, which says that it is no part of another one.
    """
    kind, storage_type, key, _, numel, *part = _exactly(reference, tuple)
    if part not in ([], [None]):
        raise ValueError("a storage is a part of another one, which is not read: save it again")
    if type(storage_type) is Inert:
        return storage_type
    if kind != "storage" or type(numel) is not int or numel < 0:
        raise TypeError
    return Storage(_exactly(key, str), STORAGES[_exactly(storage_type, Global).name], numel)


_BUILDERS: dict[str, Callable[..., Any]] = {
    "collections OrderedDict": _ordered_dict,
    "torch._utils _rebuild_tensor_v2": _tensor,
    "torch._utils _rebuild_tensor_v3": _tensor_of_dtype,
    "torch._utils _rebuild_parameter": _parameter,
    "torch Size": tuple,
}


_REFUSED = {
    "torch._utils _rebuild_qtensor": "for quantized tensors, which are not read: dequantize them",
}
"""Why some globals that state dicts do have are refused."""


def _fixed(value: Callable[[], Any]) -> Callable[[_Machine, Any], None]:
    return lambda machine, _: machine.stack.append(value())


_LITERALS = {
    *("BININT", "BININT1", "BININT2", "LONG1", "LONG4", "INT", "LONG", "BINFLOAT", "FLOAT"),
    *("BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "UNICODE"),
    *("BINSTRING", "SHORT_BINSTRING", "STRING"),
}

_ACTIONS: dict[str, Callable[[_Machine, Any], None]] = {
    "PROTO": lambda machine, _: None,
    "FRAME": lambda machine, _: None,
    "NONE": _fixed(lambda: None),
    "NEWTRUE": _fixed(lambda: True),
    "NEWFALSE": _fixed(lambda: False),
    "EMPTY_DICT": _fixed(dict),
    "EMPTY_LIST": _fixed(list),
    "EMPTY_TUPLE": _fixed(tuple),
    "MARK": _Machine.mark,
    "POP": _Machine.pop,
    "TUPLE": lambda machine, _: machine.tuple_of(machine.pop_mark()),
    "TUPLE1": lambda machine, _: machine.tuple_of(machine.pop_last(1)),
    "TUPLE2": lambda machine, _: machine.tuple_of(machine.pop_last(2)),
    "TUPLE3": lambda machine, _: machine.tuple_of(machine.pop_last(3)),
    "SETITEM": lambda machine, _: machine.set_items(machine.pop_last(2)),
    "SETITEMS": lambda machine, _: machine.set_items(machine.pop_mark()),
    "APPEND": lambda machine, _: machine.append_items(machine.pop_last(1)),
    "APPENDS": lambda machine, _: machine.append_items(machine.pop_mark()),
    "PUT": _Machine.put,
    "BINPUT": _Machine.put,
    "LONG_BINPUT": _Machine.put,
    "MEMOIZE": _Machine.memoize,
    "GET": _Machine.get,
    "BINGET": _Machine.get,
    "LONG_BINGET": _Machine.get,
    "GLOBAL": _Machine.named,
    "STACK_GLOBAL": _Machine.stack_named,
    "REDUCE": _Machine.reduce,
    "BUILD": _Machine.build,
    "BINPERSID": _Machine.persistent,
}

_OF_OBJECTS: dict[str, Callable[[_Machine, Any], None]] = {
    "BINBYTES": lambda machine, value: machine.stack.append(value),
    "SHORT_BINBYTES": lambda machine, value: machine.stack.append(value),
    "NEWOBJ": lambda machine, _: machine.instance(machine.pop_last(2)),
    "NEWOBJ_EX": lambda machine, _: machine.instance(machine.pop_last(3)),
    "OBJ": lambda machine, _: machine.instance(machine.pop_mark()),
    "INST": lambda machine, name: machine.instance([Inert(name), machine.pop_mark()]),
    "EMPTY_SET": _fixed(lambda: Inert("builtins set")),
    "ADDITEMS": lambda machine, _: machine.append_items(machine.pop_mark()),
    "FROZENSET": lambda machine, _: machine.instance(
        [Inert("builtins frozenset"), machine.pop_mark()]
    ),
}
"""Opcodes of objects that are no tensors: they leave placeholders."""
