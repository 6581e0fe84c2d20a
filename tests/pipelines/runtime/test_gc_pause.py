"""Pausing the garbage collector."""

import gc

import pytest

from pipelines.runtime.gc_pause import gc_paused, gc_paused_for_import


def test_garbage_collection_is_paused_only_for_the_first_import_of_a_module():
    with gc_paused_for_import("pytest"):
        assert gc.isenabled()
    with gc_paused_for_import("a_module_that_has_not_been_imported"):
        assert not gc.isenabled()
    assert gc.isenabled()


def test_garbage_collection_is_enabled_again_after_an_exception():
    with pytest.raises(ValueError, match="inside"), gc_paused():
        raise ValueError("inside")
    assert gc.isenabled()


def test_a_pause_inside_a_pause_does_not_end_it():
    with gc_paused():
        with gc_paused():
            pass
        assert not gc.isenabled()
