"""One file per verb of the command line: its options, its help, its printing, its exit code.

The file of a verb parses the arguments, calls the function that does the work, and prints the result. It imports
nothing heavy: the room that does the work is imported when the verb is called. Only cli.py and sweeps (which runs
published commands) may import these files.
"""
