"""The functions of `import adaptry`.

Each takes strings or values, opens what they name, calls one operation, and closes what it opened. Nothing is
decided here that the operations decide: the command line calls the same ones.
"""
