"""The command line: an edge. It parses words into values, calls a verb, and prints the answer.

stdout is the answer, stderr the story. Nothing here knows how anything works, and `adaptry --help` imports
nothing but click: each command's module is loaded when the command is called.
"""
