"""The `compressor` script, and `python -P -m compressor` where it is not installed."""

from compressor.cli.app import app


def main() -> None:
    """Run the command line and exit."""
    app()


if __name__ == "__main__":
    main()
