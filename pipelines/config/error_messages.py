"""What the user sees of an error: one line with the key, the value and what is expected."""

import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

from jsonargparse import ArgumentParser
from lightning.fabric.utilities.exceptions import MisconfigurationException

from pipelines.config.class_names import nearest_class
from pipelines.config.class_parser import class_parser
from pipelines.config.experiments import experiment_files, read_yaml
from pipelines.config.suggestions import explain_unknown_key, keys_of, keys_of_experiments
from pipelines.runtime.class_paths import import_named
from pipelines.runtime.errors import UserError
from pipelines.runtime.lightning_names import separate_lightning
from pipelines.runtime.project_packages import hidden_module
from pipelines.runtime.user_traceback import user_traceback

_UNKNOWN = re.compile(
    r"(?:Option|[Kk]ey) '(?P<a>[\w.]+)' is not (?:accepted|expected)"
    r"|unrecognized arguments: --(?P<b>[\w.]+)"
    r"|Group '(?P<group>[\w.]+)' does not accept (?:option|nested key) '(?P<c>[\w.]+)'"
)
_CLASS = re.compile(r"class_path[= ]'([\w.]+)'")
_SECTION = re.compile(r'Parser key "([\w.]+)"')
_NOISE = re.compile(
    r"Parser key|Does not validate|Subtypes:|Errors:|Given value|Problem with given|Expected a <class 'NoneType'>"
    r"|Expected a path but"
)
_LIST = re.compile(r"Expected a (<class '(list|tuple|collections\.abc\.(Sequence|Iterable))'>|list|tuple)[^;]*")
_SET_BY_LITLAB = {"input_shape", "num_classes", "params"}  # taken from the data and the network, never given


@contextmanager
def refusals(*, wrapped: bool = True) -> Iterator[None]:
    """Turn errors that a class raises for a wrong value or a missing file into UserError; not those of a user's file.

    Args:
        wrapped: Whether jsonargparse has wrapped them in errors of its own.

    Raises:
        UserError: litlab or a library refused a value.
        Exception: The error of a user's file, as it was raised.
    """
    try:
        yield
    except (ValueError, OSError, MisconfigurationException) as error:
        if found := user_traceback(error):
            raise found.error from None
        raise UserError(str(_root_cause(error) if wrapped else error)) from error


def _root_cause(error: BaseException) -> BaseException:
    """Return the error that a class raised, which jsonargparse wraps in others."""
    while True:
        inner = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
        if not isinstance(inner, ValueError | OSError):
            return error
        error = inner


def explain_parser_error(message: str, parser: ArgumentParser, args: Sequence[str]) -> str:
    """Return a one-line message: the unknown key and the nearest one, or the wrong value and what is expected.

    Args:
        message: jsonargparse's message.
        parser: The parser that raised it.
        args: The arguments that it parsed.
    """
    unknown = _UNKNOWN.search(message)
    if unknown is None:
        return _explain_wrong_value(message)
    section = _join_keys([*_SECTION.findall(message[: unknown.start()]), unknown["group"]])
    key = _join_keys([section, unknown["a"] or unknown["b"] or unknown["c"]])
    known = _known_keys(message, unknown, section, parser, args) - {key}
    return explain_unknown_key(key, {name for name in known if name.rpartition(".")[2] not in _SET_BY_LITLAB}, section)


def _join_keys(parts: Iterable[str | None]) -> str:
    return ".".join(part for part in parts if part).replace("init_args.", "")


def _explain_wrong_value(message: str) -> str:
    section = _join_keys(_SECTION.findall(message))
    if missing := re.search(r"arguments are required: ([\w.]+)", message):
        return f"{_join_keys([section, missing[1]])} is required"
    lines = [line.strip().removeprefix("- ") for line in message.splitlines()]
    told = dict.fromkeys(line.rstrip(":") for line in lines if line and not _NOISE.match(line))
    text = "; ".join(told)
    text = re.sub(r"\ban? <class '(?:\w+\.)*(\w+)'>", r"\1", text)
    text = re.sub(r"\ban? typing\.Literal\[(.*?)\]", r"one of \1", text)
    given = re.search(r"Given value: (?:NestedArg\(.*val=)?'?(.*?)'?\)?$", message)
    if section and given and given[1] == "None":
        return f"{section} is null: give a value, or leave it out; a file (-c FILE) may have null for what can be None"
    if given and (hint := _class_hint(section, given[1], text)):
        return hint
    got = f", got {given[1]!r}" if given and "value" not in text else ""
    text = re.sub(r"\. (?:Got|But got) value: (.*)", r", got \1", text)
    text = f"{section}: {text}{got}" if section else f"{text}{got}"
    if _LIST.fullmatch("; ".join(told)) and given and given[1][:1] not in ("[", "{"):
        return f"{text}; for a list with one item, write [{given[1]}]"
    is_other_class = "correspond to a subclass" in message
    named = re.search(r"Import path (\w+[.][\w.]+) does not", message) or given
    return text + (_why_not_accepted(named[1]) if is_other_class and named else "")


def _class_hint(key: str, given: str, text: str) -> str:
    """Return the message for the name of a class that does not exist; "" if the error is another one."""
    attribute = re.search(r"module '[\w.]+' has no attribute '(\w+)'", text)
    module = re.search(r"No module named '([\w.]+)'", text)
    missing = None if module is None or not f"{given}.".startswith(f"{module[1]}.") else module
    by_path = missing or (attribute is not None and attribute[1] in given.split(".")[1:])
    if not by_path and f"Expected a dot import path string: {given}" not in text:
        return ""
    nearest = nearest_class(key, given)
    hint = f"did you mean {nearest}?" if nearest else "give its import path, such as my_package.my_module.MyClass"
    reason = missing or attribute
    if hidden := hidden_module(given.rpartition(".")[0]):
        hint = f"rename {hidden}, which litlab's module of that name hides"
    return f"{key}: there is no class {given!r}{f' ({reason[0]})' if reason else ''}: {hint}"


def _why_not_accepted(class_path: str) -> str:
    """Return what may be the reason that a class or function is not accepted, as the end of a message."""
    if separate_lightning():
        return "; pytorch_lightning was imported before litlab, so that its classes are not those of lightning.pytorch"
    try:
        named = import_named(class_path)
    except (ImportError, AttributeError, ValueError):  # the message quotes something else
        return ""
    is_function = callable(named) and not isinstance(named, type)
    return "; a function needs a return annotation, such as -> LightningModule" if is_function else ""


def _known_keys(
    message: str, unknown: re.Match[str], section: str, parser: ArgumentParser, args: Sequence[str]
) -> set[str]:
    """Return the keys that could have been meant: of the parser, of experiments and of the class in the message."""
    keys = {name for name in parser.get_defaults().keys() if name != "config"}  # noqa: SIM118  # a Namespace
    used = [read_yaml(path) for path in experiment_files().values() if str(path) in args]
    keys |= {key for content in used for key in keys_of(content)} if used else keys_of_experiments()
    after, before = _CLASS.search(message, unknown.end()), _CLASS.findall(message[: unknown.start()])
    class_path = after[1] if after else before[-1] if before else None
    if class_path:
        keys = {name for name in keys if name.rpartition(".")[0] != section}
        keys |= {f"{section}.{argument}" for argument in _arguments_of(class_path)}
    return keys


def _arguments_of(class_path: str) -> Iterable[str]:
    """Return the argument names of a class or function."""
    parser = class_parser(class_path, "it")
    return {key.removeprefix("it.").partition(".")[0] for key in parser.get_defaults().keys()} - {"it"}  # noqa: SIM118
