"""The parts of Lightning that modules use although they are not documented, tried with 2.6.6.

A later version may change them: tests/pipelines/runtime/test_internals.py fails then, and names the part.
"""

HOOK_NAME = "_current_fx_name"  # attribute of a module that Lightning sets about 40 times per step
