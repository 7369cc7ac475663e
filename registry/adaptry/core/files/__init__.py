"""Files and folders: written atomically, cached, locked, hashed in the background."""
