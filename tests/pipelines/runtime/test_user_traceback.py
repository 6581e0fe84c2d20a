"""Which files are the user's: neither litlab's nor of an installed package, wherever it is installed."""

import json

from pipelines.runtime.user_traceback import is_user_file, user_traceback


def test_files_of_installed_packages_of_litlab_and_of_python_are_not_the_users(tmp_path):
    assert is_user_file(str(tmp_path / "model.py"))
    assert not is_user_file(json.__file__)
    assert not is_user_file(user_traceback.__code__.co_filename)
    assert not is_user_file("<frozen importlib._bootstrap>")


def test_packages_that_pip_installs_into_any_folder_are_no_files_of_the_user(tmp_path, monkeypatch):
    (tmp_path / "libraries" / "package-1.0.dist-info").mkdir(parents=True)
    monkeypatch.syspath_prepend(tmp_path / "libraries")
    monkeypatch.syspath_prepend(tmp_path)
    assert not is_user_file(str(tmp_path / "libraries" / "package" / "core.py"))
    assert is_user_file(str(tmp_path / "project" / "model.py"))
