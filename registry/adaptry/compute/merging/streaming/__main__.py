"""`python -m adaptry.compute.merging.streaming`: see `server`."""

import sys

from adaptry.compute.merging.streaming.server import main

if __name__ == "__main__":
    main(sys.argv[1:])
