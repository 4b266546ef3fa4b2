"""Run one cell, or with -m a sweep: see `python train.py --help`."""

from genaug.app import main

if __name__ == "__main__":
    main()
