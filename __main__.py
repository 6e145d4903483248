"""``python -m fedphantom``, and the program ``fedphantom``."""

from .common.interrupt import end_at_once


def main() -> None:
    """Run the command line; from here on Ctrl-C ends it in order, also while it is still being imported."""
    end_at_once()
    from .cli import main as run_commands

    run_commands()


if __name__ == "__main__":
    main()
