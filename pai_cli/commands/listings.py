"""`pai methods`, `pai metrics`, `pai models`: what there is to choose from."""

from __future__ import annotations

from pai_cli.commands import options
from pai_cli.files.tables import Format


def methods(
    format: options.OutputFormat = Format.TABLE,  # noqa: A002  the flag's name
    columns: options.Columns = None,
    sort: options.Sort = None,
    no_header: options.NoHeader = False,
) -> None:
    """List the pruning methods: whether they need data, whether they train, and whose they are."""
    options.check_header(format, no_header=no_header)
    from pai_cli.api.listings import list_methods
    from pai_cli.display.listings import show_listing

    show_listing(list_methods(), format, columns, sort, header=not no_header)


def metrics(
    format: options.OutputFormat = Format.TABLE,  # noqa: A002  the flag's name
    columns: options.Columns = None,
    sort: options.Sort = None,
    no_header: options.NoHeader = False,
) -> None:
    """List what masks are measured and ranked by: what each needs, and which end is best."""
    options.check_header(format, no_header=no_header)
    from pai_cli.api.listings import list_metrics
    from pai_cli.display.listings import show_listing

    show_listing(list_metrics(), format, columns, sort, header=not no_header)


def models(
    format: options.OutputFormat = Format.TABLE,  # noqa: A002  the flag's name
    columns: options.Columns = None,
    sort: options.Sort = None,
    no_header: options.NoHeader = False,
) -> None:
    """List the architectures that are known by name."""
    options.check_header(format, no_header=no_header)
    from pai_cli.api.listings import list_models
    from pai_cli.display.listings import show_listing

    show_listing(list_models(), format, columns, sort, header=not no_header)


COMMANDS = {
    "methods": (methods, "pai methods"),
    "metrics": (metrics, "pai metrics"),
    "models": (models, "pai models"),
}
