"""`python -m medseg` is the command `medseg`."""

from medseg.cli import main

if __name__ == "__main__":
    main()
