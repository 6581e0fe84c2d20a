"""Types that are restored from a checkpoint although torch's restricted unpickler does not know them.

They are safe by construction: the functions here are called in place of what the file names, check their arguments, and
build paths, dates, and NumPy's numbers and arrays. NumPy's own functions are not called, because a crafted dtype makes
them read memory outside of the file. `Opaque` stands for anything else: it ignores what it is given.
"""

import datetime
import os
import pathlib
import pickle
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import numpy as np

_PATHS: dict[str, type[pathlib.PurePath]] = {
    "PosixPath": pathlib.PurePosixPath if os.name == "nt" else pathlib.Path,
    "WindowsPath": pathlib.Path if os.name == "nt" else pathlib.PureWindowsPath,
    "PurePosixPath": pathlib.PurePosixPath,
    "PureWindowsPath": pathlib.PureWindowsPath,
}
_NUMPY_KINDS = "biufcSU"  # no objects, no structures


class Opaque:
    """An object that was not restored. It is inert: whatever the file passes to it is ignored.

    Attributes:
        name: The class or function that the file names.
    """

    name = ""

    def __new__(cls, *_args: Any) -> "Opaque":
        return super().__new__(cls)

    def __init__(self, *_args: Any) -> None: ...

    def __setstate__(self, _state: Any) -> None: ...


class _DType:
    """A dtype of NumPy, described by its code and byte order."""

    def __init__(self, code: str, *_flags: Any) -> None:
        self._code, self._order = code, ""

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        if any(part is not None for part in state[2:5]):
            raise pickle.UnpicklingError("structured dtypes of NumPy are not restored")
        self._order = ">" if state[1] == ">" else ""

    def resolve(self) -> "np.dtype[Any]":
        dtype = np.dtype(self._order + self._code)
        if dtype.kind not in _NUMPY_KINDS:
            raise pickle.UnpicklingError(f"NumPy's dtype {self._code!r} is not restored")
        return dtype


class _Array:
    """An array of NumPy, described by shape, dtype and bytes."""

    def __init__(self, *_args: Any) -> None:
        self._state: tuple[Any, ...] = ()

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self._state = state

    def resolve(self) -> "np.ndarray[Any, Any]":
        _, shape, dtype, is_fortran, data = self._state
        if not isinstance(dtype, _DType) or not isinstance(data, bytes):
            raise pickle.UnpicklingError("arrays of objects are not restored")
        return np.frombuffer(data, dtype.resolve()).reshape(shape, order="F" if is_fortran else "C").copy()


def _numpy_scalar(dtype: Any, data: Any) -> Any:
    if not isinstance(dtype, _DType) or not isinstance(data, bytes):
        raise pickle.UnpicklingError("objects in NumPy's scalars are not restored")
    return np.frombuffer(data, dtype.resolve(), count=1)[0]


def _path(cls: type[pathlib.PurePath]) -> Callable[..., pathlib.PurePath]:
    return lambda *parts: cls(*(str(part) for part in parts))  # a function: the file cannot set attributes of the path


HARMLESS: list[tuple[Callable[..., Any], str]] = [
    *((_path(cls), f"{module}.{name}") for name, cls in _PATHS.items() for module in ("pathlib", "pathlib._local")),
    *((getattr(datetime, name), f"datetime.{name}") for name in ("datetime", "date", "time", "timedelta", "timezone")),
    (frozenset, "builtins.frozenset"),
    (_DType, "numpy.dtype"),
    (Opaque, "numpy.ndarray"),  # an argument of the next
    *((_Array, f"numpy.{core}.multiarray._reconstruct") for core in ("_core", "core")),
    *((_numpy_scalar, f"numpy.{core}.multiarray.scalar") for core in ("_core", "core")),
]


def opaque(name: str) -> tuple[type[Opaque], str]:
    """Return a type that takes the place of a class or function that a file names, with this name."""
    return type("Opaque", (Opaque,), {"name": name}), name


def resolve(value: Any) -> Any:
    """Replace the descriptions of NumPy's dtypes and arrays in nested containers by what they describe."""
    if isinstance(value, _DType | _Array):
        return value.resolve()
    if type(value) in (dict, OrderedDict):
        for key, item in value.items():
            value[key] = resolve(item)
    elif type(value) is list:
        value[:] = map(resolve, value)
    elif type(value) is tuple:
        return tuple(map(resolve, value))
    return value


def opaque_names(value: Any) -> set[str]:
    """Return the names of the objects in nested containers that were not restored."""
    if isinstance(value, Opaque):
        return {value.name}
    if isinstance(value, type) and issubclass(value, Opaque):  # a class or function itself
        return {value.name}
    if isinstance(value, dict):
        return set().union(*map(opaque_names, (*value.keys(), *value.values())))
    if isinstance(value, list | tuple | set | frozenset):
        return set().union(*map(opaque_names, value))
    return set()
