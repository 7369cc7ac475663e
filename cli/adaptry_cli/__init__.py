"""The command line: parses arguments into values, calls one operation, and prints the result.

Results go to stdout, messages to stderr. Commands contain no logic of their own. `adaptry --help` imports
only click: each command's module is imported when the command is called.
"""
