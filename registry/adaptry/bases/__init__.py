"""What a base model is on disk: its files, fingerprint, names, shapes and quantised forms."""
