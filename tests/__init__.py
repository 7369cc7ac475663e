"""The tests are a package: the wheel of canaille installs another package called `tests`."""
