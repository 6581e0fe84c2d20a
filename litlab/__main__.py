"""`python -m litlab`, where the command `litlab` is not on the path."""

from litlab.cli import console

if __name__ == "__main__":
    console()
