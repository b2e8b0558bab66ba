"""A pickle read as data: nothing that it names is imported, made or called.

Each name that a pickle asks for must be on a closed list; what it would make of it is written down as a `Built` (the
name, the arguments, the state) for the reader of checkpoints to understand. So there is nothing in a file that could
run, and nothing is allocated beyond what the file itself holds.
"""

from __future__ import annotations

import pickletools
from dataclasses import dataclass, field
from typing import IO, Any, Protocol, cast

MOST_OPERATIONS = 5_000_000
"""A pickle with more is refused: each operation may take some hundred bytes of memory."""

_NUMPY_SCALARS = "bool_ bool float16 float32 float64 longdouble int8 int16 int32 int64 uint8 uint16 uint32 uint64 str_"
_TORCH_TYPES = (
    "float64 double float32 float float16 half bfloat16 int64 long int32 int int16 short int8 uint8 uint16 uint32 "
    "uint64 bool complex32 complex64 complex128 cfloat cdouble qint8 qint32 quint8 quint4x2 quint2x4 float8_e5m2 "
    "float8_e4m3fn float8_e5m2fnuz float8_e4m3fnuz float8_e8m0fnu float4_e2m1fn_x2 bits8 bits16 bits1x8 bits2x4 "
    "bits4x2"
)
_STORAGES = "Double Float Half Long Int Short Char Byte Bool BFloat16 ComplexDouble ComplexFloat QInt8 QInt32 QUInt8"
_REBUILDERS = (
    "_rebuild_tensor _rebuild_tensor_v2 _rebuild_tensor_v3 _rebuild_parameter _rebuild_parameter_with_state "
    "_rebuild_qtensor _rebuild_sparse_tensor _rebuild_meta_tensor_no_storage _rebuild_nested_tensor "
    "_rebuild_wrapper_subclass _rebuild_device_tensor_from_numpy _rebuild_device_tensor_from_cpu_tensor "
    "_rebuild_xla_tensor"
)
_PATHS = "Path PosixPath WindowsPath PurePath PurePosixPath PureWindowsPath"
_ATTRIBUTE_DICTS = (
    "lightning.fabric.utilities.data",
    "lightning_fabric.utilities.data",
    "lightning.pytorch.utilities.parsing",
    "pytorch_lightning.utilities.parsing",
)


def _names(module: str, names: str, ending: str = "") -> set[str]:
    return {f"{module}.{name}{ending}" for name in names.split()}


ALLOWED = frozenset(
    _names("builtins", "set frozenset complex bytearray bytes slice range dict list tuple int float str bool object")
    | _names("collections", "OrderedDict defaultdict Counter deque")
    | _names("argparse", "Namespace")
    | _names("types", "SimpleNamespace")
    | _names("datetime", "datetime date time timedelta timezone")
    | {"decimal.Decimal", "fractions.Fraction", "uuid.UUID", "_codecs.encode", "copyreg._reconstructor"}
    | {name for module in ("pathlib", "pathlib._local") for name in _names(module, _PATHS)}
    | _names("numpy", f"dtype ndarray {_NUMPY_SCALARS}")
    | _names("numpy.core.multiarray", "scalar _reconstruct")
    | {"numpy.core.numeric._frombuffer"}
    | _names("numpy.dtypes", "Bool Int8 Int16 Int32 Int64 UInt8 UInt16 UInt32 UInt64 Float16 Float32 Float64", "DType")
    | _names("torch", f"Size Tensor device {_TORCH_TYPES}")
    | _names("torch", f"{_STORAGES} QUInt4x2 QUInt2x4", "Storage")
    | _names("torch", "per_tensor_affine per_tensor_symmetric per_channel_affine per_channel_symmetric")
    | {"torch.per_channel_affine_float_qparams", "torch.serialization._get_layout", "torch.torch_version.TorchVersion"}
    | _names("torch.storage", "UntypedStorage TypedStorage _load_from_bytes")
    | _names("torch.nn.parameter", "Parameter Buffer")
    | _names("torch._utils", _REBUILDERS)
    | {"torch._tensor._rebuild_from_type_v2"}
    | {f"{module}.AttributeDict" for module in _ATTRIBUTE_DICTS}
    | {"omegaconf.listconfig.ListConfig", "omegaconf.dictconfig.DictConfig", "typing.Any"}
    | _names("omegaconf.base", "ContainerMetadata Metadata")
    | _names("omegaconf.nodes", "Any Boolean Bytes Float Integer Path String", "Node")
)
"""All names that a pickle may ask for: containers, plain values, and what torch and numpy make tensors of."""

_RENAMED = {"__builtin__": "builtins", "copy_reg": "copyreg", "numpy._core.multiarray": "numpy.core.multiarray"}
_RENAMED |= {"numpy._core.numeric": "numpy.core.numeric"}
_OF_PYTHON_2 = {"builtins.long": "int", "builtins.unicode": "str", "builtins.xrange": "range"}
"""Types as protocols up to 2 call them, also where Python 3 writes them."""


class ForeignName(Exception):
    """A pickle asks for a name that is not on the list."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name


class DamagedPickle(Exception):
    """Not a pickle, or one that is cut off, damaged or made to be in the way."""


@dataclass(frozen=True, eq=False)
class Name:
    """A name that a pickle asks for: "torch.float32"."""

    path: str


@dataclass(eq=False)
class Built:
    """What a pickle would make by calling a name.

    Attributes:
        what: the name, one of `ALLOWED`.
        args: what it would be called with.
        state: what it would be given afterwards (`__setstate__`), or None.
        entries: what would be set in it, where it is a mapping.
    """

    what: str
    args: tuple[Any, ...]
    state: Any = None
    entries: dict[Any, Any] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Persistent:
    """Something that lies outside of the pickle: a storage."""

    id: Any


def module_class(persistent: Persistent) -> Name | None:
    """The class that torch's old format writes beside its source code, as it does for networks; None of a storage."""
    is_class = isinstance(persistent.id, tuple) and len(persistent.id) > 1 and persistent.id[0] == "module"
    return persistent.id[1] if is_class and isinstance(persistent.id[1], Name) else None


@dataclass(frozen=True, eq=False)
class _Key:
    """A dict's key that is not a plain value."""

    value: Any


class PickleSource(Protocol):
    """What a pickle is read from."""

    def read(self, size: int = -1, /) -> bytes: ...

    def readline(self) -> bytes: ...


def read_pickle(
    source: PickleSource, found: list[Persistent] | None = None, further: frozenset[str] = frozenset()
) -> Any:
    """The next pickle of a source, as plain values, `Built`, `Name` and `Persistent`; sets are lists.

    Args:
        source: is read to the pickle's end and no further.
        found: takes each `Persistent` that the pickle asks for.
        further: names that it may ask for beside `ALLOWED`; these too are only written down.

    Raises:
        ForeignName: it asks for a name that is not on the list.
        DamagedPickle: it is none, or not a whole one.
    """
    machine = _Machine([] if found is None else found, further)
    try:
        for count, (operation, argument, _) in enumerate(pickletools.genops(cast(IO[bytes], source))):
            if count > MOST_OPERATIONS:
                raise DamagedPickle(f"it has more than {MOST_OPERATIONS} operations")
            if operation.name == "STOP":
                return machine.stack.pop()
            machine.do(operation.name, argument)
    except (ValueError, LookupError, TypeError, AttributeError, OverflowError, EOFError, MemoryError) as error:
        raise DamagedPickle(str(error)) from error
    raise DamagedPickle("it has no end")  # not reached: genops itself raises


_LITERALS = {
    *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
    *("STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
    *("BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"),
}
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_NEW: dict[str, type] = {"EMPTY_DICT": dict, "EMPTY_LIST": list, "EMPTY_SET": list, "EMPTY_TUPLE": tuple}
_MAPPINGS = {"collections.OrderedDict", "builtins.dict", "collections.defaultdict", "collections.Counter"}
_MAPPINGS |= {f"{module}.AttributeDict" for module in _ATTRIBUTE_DICTS}


class _Machine:
    """The pickle machine, in which calls are only written down."""

    def __init__(self, found: list[Persistent], further: frozenset[str]) -> None:
        self.found, self.further = found, further
        self.stack: list[Any] = []
        self.marks: list[list[Any]] = []
        self.memo: dict[int, Any] = {}

    def do(self, operation: str, argument: Any) -> None:
        if operation in _LITERALS:
            self.stack.append(argument)
        elif operation in _CONSTANTS:
            self.stack.append(_CONSTANTS[operation])
        elif operation in _NEW:
            self.stack.append(_NEW[operation]())
        elif operation in ("PUT", "BINPUT", "LONG_BINPUT"):
            self.memo[argument] = self.stack[-1]
        elif operation in ("GET", "BINGET", "LONG_BINGET"):
            self.stack.append(self.memo[argument])
        elif operation not in ("PROTO", "FRAME", "READONLY_BUFFER"):
            step = getattr(self, f"_{operation.lower()}", None)
            if step is None:
                raise DamagedPickle(f"it has the operation {operation}, which no checkpoint needs")
            step() if argument is None else step(argument)

    def _memoize(self) -> None:
        self.memo[len(self.memo)] = self.stack[-1]

    def _mark(self) -> None:
        self.marks.append(self.stack)
        self.stack = []

    def _marked(self) -> list[Any]:
        items, self.stack = self.stack, self.marks.pop()
        return items

    def _pop(self) -> None:
        if self.stack:
            self.stack.pop()
        else:
            self._marked()

    def _pop_mark(self) -> None:
        self._marked()

    def _dup(self) -> None:
        self.stack.append(self.stack[-1])

    def _tuple(self) -> None:
        items = tuple(self._marked())
        self.stack.append(items)

    def _tuple1(self) -> None:
        self._last(1)

    def _tuple2(self) -> None:
        self._last(2)

    def _tuple3(self) -> None:
        self._last(3)

    def _last(self, count: int) -> None:
        if len(self.stack) < count:
            raise DamagedPickle("a tuple of more than there is")
        self.stack[-count:] = [tuple(self.stack[-count:])]

    def _list(self) -> None:
        items = self._marked()
        self.stack.append(items)

    _frozenset = _list

    def _dict(self) -> None:
        items = self._marked()
        self.stack.append({})
        self._set(items)

    def _append(self) -> None:
        self._extend([self.stack.pop()])

    def _appends(self) -> None:
        self._extend(self._marked())

    _additems = _appends

    def _extend(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if isinstance(target, list):
            target.extend(items)
        elif not isinstance(target, Built):
            raise DamagedPickle("something is appended to what is no list")

    def _setitem(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self._set([key, value])

    def _setitems(self) -> None:
        self._set(self._marked())

    def _set(self, items: list[Any]) -> None:
        target = self.stack[-1]
        mapping = target.entries if isinstance(target, Built) else target
        if not isinstance(mapping, dict):
            raise DamagedPickle("an entry is set in what is no dict")
        for key, value in zip(items[::2], items[1::2], strict=True):
            plain = isinstance(key, str | int | float | bytes | None)
            mapping[key if plain else _Key(key)] = value

    def _global(self, argument: str) -> None:
        module, _, name = argument.partition(" ")
        self.stack.append(self._allowed(module, name))

    def _stack_global(self) -> None:
        name, module = self.stack.pop(), self.stack.pop()
        if not isinstance(name, str) or not isinstance(module, str):
            raise DamagedPickle("a name that is no text")
        self.stack.append(self._allowed(module, name))

    def _reduce(self) -> None:
        args, called = self.stack.pop(), self.stack.pop()
        self.stack.append(_built(called, args))

    _newobj = _reduce

    def _newobj_ex(self) -> None:
        self.stack.pop()  # keyword arguments, which nothing on the list needs
        self._reduce()

    def _obj(self) -> None:
        called, *args = self._marked()
        self.stack.append(_built(called, tuple(args)))

    def _inst(self, argument: str) -> None:
        module, _, name = argument.partition(" ")
        args = tuple(self._marked())
        self.stack.append(_built(self._allowed(module, name), args))

    def _build(self) -> None:
        state = self.stack.pop()
        if isinstance(self.stack[-1], Built):
            self.stack[-1].state = state
        elif not isinstance(self.stack[-1], dict):
            raise DamagedPickle("a state is given to what has none")

    def _binpersid(self) -> None:
        self.found.append(Persistent(self.stack.pop()))
        self.stack.append(self.found[-1])

    def _allowed(self, module: str, name: str) -> Name:
        path = f"{_RENAMED.get(module, module)}.{name}"
        if path in _OF_PYTHON_2:
            path = f"builtins.{_OF_PYTHON_2[path]}"
        if (path not in ALLOWED and path not in self.further) or "." in name:
            raise ForeignName(f"{module}.{name}")
        return Name(path)


def _built(called: Any, args: Any) -> Any:
    """The call of a name, written down; an empty mapping becomes a dict."""
    if isinstance(called, Persistent) and (of_module := module_class(called)) is not None:
        called = of_module
    if not isinstance(called, Name) or not isinstance(args, tuple):
        raise DamagedPickle("a call of what is no name")
    if called.path in _MAPPINGS and all(isinstance(arg, Name) for arg in args):  # a defaultdict's factory
        return {}
    return Built(called.path, args)
