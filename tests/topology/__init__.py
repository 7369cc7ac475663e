"""A package, so that `running`, a fixture of its scope, ends with the last of its tests."""
