"""`python -m adaptry_cli`: the `adaptry` command, if its script is not installed."""

from adaptry_cli.main import main

if __name__ == "__main__":
    main()
