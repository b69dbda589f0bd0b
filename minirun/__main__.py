"""``python -m minirun``, and what pip's console script calls."""

from minirun.cli.main import main

if __name__ == "__main__":
    main()
