"""One file per verb of the command line: its options, its help, its printing, its exit code.

A verb's file parses, calls the function that does the work, and prints what it returns. Importing it costs nothing: the
room that does the work is imported when it is called. Only cli.py, and sweeps (which runs published
commands), may import these files.
"""
