"""``python -m pytest_machine``: the command line, whatever is on the PATH."""

from pytest_machine.cli import main

if __name__ == "__main__":
    main()
