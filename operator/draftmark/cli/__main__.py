"""`python -m draftmark.cli`."""

from draftmark.cli import main

if __name__ == "__main__":
    main()
