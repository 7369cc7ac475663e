"""`python -m adaptry_cli`: the `adaptry` command where no script is installed."""

from adaptry_cli.main import main

if __name__ == "__main__":
    main()
