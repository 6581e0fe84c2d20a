"""A parser of the arguments of one class or function."""

from jsonargparse import ArgumentParser

from pipelines.runtime.class_paths import import_named


def class_parser(class_path: str, prefix: str | None = None) -> ArgumentParser:
    """Return a parser of the arguments of a class or function; those without a type take any value.

    Args:
        class_path: The class or function.
        prefix: Key that the arguments are in; none by default.

    Raises:
        ImportError, AttributeError, ValueError: It cannot be imported, or has no signature.
    """
    parser = ArgumentParser(exit_on_error=False)
    named = import_named(class_path)
    add = parser.add_class_arguments if isinstance(named, type) else parser.add_function_arguments
    add(named, prefix, fail_untyped=False)
    return parser
