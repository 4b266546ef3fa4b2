"""``python -m genaug``: the same as ``genaug``."""

from genaug.cli import main

if __name__ == "__main__":
    main()
