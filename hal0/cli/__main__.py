"""``python -m hal0.cli``."""

from hal0.cli import main

if __name__ == "__main__":
    main()
