"""Files and folders: whole or not at all, cached, locked, hashed beside other work."""
