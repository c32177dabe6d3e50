"""`python -m corrsteer`, the same as `corrsteer`."""

from corrsteer.cli import main

if __name__ == "__main__":
    main()
