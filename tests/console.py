"""The command ``genaug``, as an installation starts it."""

import sys

from genaug.cli import main

if __name__ == "__main__":
    sys.argv[0] = "genaug"
    main()
