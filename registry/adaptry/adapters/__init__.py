"""What an adapter is: its files, header, config, layouts and methods."""
