"""Text that is safe to show."""

import sqlite3

import pytest
from mlflow.exceptions import MlflowException
from sqlalchemy.exc import OperationalError

from pipelines.runtime.errors import UserError
from pipelines.runtime.log import logger
from pipelines.runtime.text import first_line, format_command, redact_credentials


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("http://anna:secret@server:5000/x", "http://anna:***@server:5000/x"),
        ("postgresql://anna@server/x?sslmode=on&password=secret", "postgresql://anna@server/x?sslmode=on&password=***"),
        ("http://server:5000", "http://server:5000"),
    ],
)
def test_passwords_in_uris_are_redacted(text, expected):
    assert redact_credentials(text) == expected


def test_a_command_is_quoted_and_without_passwords():
    command = format_command("fit", ["my experiment", "--tracking_uri", "http://anna:secret@server"])
    assert command == "litlab fit 'my experiment' --tracking_uri http://anna:***@server"


def test_the_first_line_of_an_error_is_its_message_or_its_class():
    assert first_line(ValueError("one\ntwo")) == "one"
    assert first_line(ValueError()) == "ValueError"


def test_of_a_database_error_the_first_line_is_that_of_the_database_itself():
    cause = sqlite3.OperationalError("attempt to write a readonly database")
    wrapped = OperationalError("(raised as a result of Query-invoked autoflush)", None, cause)
    by_mlflow = MlflowException("(raised as a result of Query-invoked autoflush)\n...")
    by_mlflow.__cause__ = wrapped
    assert first_line(wrapped) == first_line(by_mlflow) == "attempt to write a readonly database"
    own = UserError("no run can be created: attempt to write a readonly database")
    own.__cause__ = by_mlflow
    assert first_line(own) == str(own), "litlab's own message says more"


def test_messages_have_a_prefix_and_no_control_characters(capfd):
    logger.warning("red \x1b[31m")
    assert capfd.readouterr().err == "litlab: red \\x1b[31m\n"
