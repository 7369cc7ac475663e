"""The tests, as a package of their own: the wheel of canaille brings another that is called `tests`."""
