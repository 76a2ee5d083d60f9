"""`python -m pai_cli` and the `pai` script."""

from __future__ import annotations


def main() -> None:
    """Run the command line; exits with its status."""
    from pai_cli.app import app
    from pai_cli.compute.threads import settle

    settle()
    app(prog_name="pai")


if __name__ == "__main__":
    main()
