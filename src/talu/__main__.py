"""``python -m talu``: the command line without its script."""

from talu.cli.main import main

if __name__ == "__main__":
    main()
