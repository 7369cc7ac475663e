"""`python -m adaptry.merging.streaming`: see `process`."""

import sys

from adaptry.compute.merging.streaming.server import main

if __name__ == "__main__":
    main(sys.argv[1:])
