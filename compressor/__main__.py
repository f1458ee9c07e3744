"""`python -m compressor`, and the `compressor` script."""

from compressor.cli import app


def main() -> None:
    """Run the command line and exit."""
    app()


if __name__ == "__main__":
    main()
