"""A package, so that the package-scoped fixture `running` ends with the last of its tests."""
