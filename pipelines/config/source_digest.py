"""A digest of the source code of a class, also of one that is defined in a cell of a notebook."""

import ast
import hashlib
import inspect
import linecache
import sys
import sysconfig
import textwrap
from collections.abc import Iterator
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any

from pipelines.runtime.project_packages import PACKAGES

DIGITS = 16
_ROOT = Path(__file__).resolve().parents[2]
_FOLDERS = [Path(sysconfig.get_path(name)).resolve() for name in ("stdlib", "purelib", "platlib")]
_FOLDERS += [_ROOT / name for name in ("litlab", *PACKAGES)]  # litlab's own, also where it is not installed but cloned


def source_digest(cls: type) -> str:
    """Return a digest of the source of a class and of its base classes, except those of installed packages and litlab.

    Comments, docstrings and the layout change nothing. Functions that the class calls are not part of it. Without
    source, as at Python's prompt, the compiled code counts, which other versions of Python compile differently.
    """
    parts = [_normalized(source) if (source := source_of(one)) else _compiled(one) for one in _own_classes(cls)]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:DIGITS]


def source_of(cls: type) -> str | None:
    """Return the source of a class; None if there is none."""
    try:
        return inspect.getsource(cls)
    except (OSError, TypeError):  # IPython keeps the source of cells, but not to which cell a class belongs
        return _source_in_cell(cls)


def _own_classes(cls: type) -> Iterator[type]:
    for one in cls.__mro__:
        file = getattr(sys.modules.get(one.__module__), "__file__", None)
        is_installed = file is not None and any(Path(file).resolve().is_relative_to(folder) for folder in _FOLDERS)
        if one.__module__ != "builtins" and (one is cls or not is_installed):
            yield one


def _source_in_cell(cls: type) -> str | None:
    """Return the definition of a class in the text that its methods were compiled from."""
    for function in _functions(cls):
        text = "".join(linecache.getlines(function.__code__.co_filename))
        try:
            tree = ast.parse(text)
        except SyntaxError:  # a cell with commands of IPython
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef) and node.name == cls.__name__ and _contains(node, function):
                return ast.get_source_segment(text, node)
    return None


def _contains(node: ast.ClassDef, function: FunctionType) -> bool:
    first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
    return first <= function.__code__.co_firstlineno <= (node.end_lineno or first)


def _functions(cls: type) -> list[FunctionType]:
    return [inspect.unwrap(value) for value in vars(cls).values() if isinstance(value, FunctionType)]


def _normalized(source: str) -> str:
    """Return code without comments, docstrings and layout."""
    tree = ast.parse(textwrap.dedent(source))
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and ast.get_docstring(node, False):
            node.body = node.body[1:] or [ast.Pass()]
    return ast.unparse(tree)


def _compiled(cls: type) -> str:
    return "\n".join(f"{function.__name__} {_code_text(function.__code__)}" for function in _functions(cls))


def _code_text(code: CodeType) -> str:
    constants: list[Any] = [_code_text(one) if isinstance(one, CodeType) else repr(one) for one in code.co_consts]
    return f"{code.co_code.hex()} {constants} {code.co_names} {code.co_varnames}"
