"""The protocol between an inspector and its child process.

A request is a length (4 bytes, big-endian) and a JSON object. The bytes of all tensors, one after another,
follow it on the socket; or they are in an open file that is sent with the length, from the position `start`
on. The answer is a length and a JSON list with, for each tensor in order: the number of NaN values, the
number of infinite values, the norm of the others (null if it has none), and whether every element is zero,
or 1.
"""

IDLE = 5.0
"""Seconds without a request after which a child ends, with exit code 0. It takes 6 MB, and 26 with numpy;
starting it takes some 30 ms.
"""

MAX_TENSORS = 8192
"""Maximum number of tensors in a request that reads an open file. A file with more tensors takes several
requests, so that neither process needs much memory for the lists.
"""

SHORT = 3
"""The exit code if the bytes end early: the sender is gone, or the file is shorter than its header says."""
