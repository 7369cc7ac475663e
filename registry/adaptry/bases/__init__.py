"""Base models on disk: files, fingerprints, names, shapes and quantised forms."""
