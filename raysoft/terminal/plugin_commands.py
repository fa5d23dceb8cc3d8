"""`raysoft new` and `raysoft check`: a plug-in of one's own in a file."""

from __future__ import annotations

import typer

from raysoft.terminal import options as given


def new(kind: given.Kind, name: given.TemplateName) -> None:
    """Write a commented template of a plug-in, NAME.py, that works as it is.

    KIND is method, extra, codec, allocator, uplink or channel. docs/plugins.md tells what each of them decides.
    """
    from raysoft.runs.conformance.new import how_to_use, write_template

    path = write_template(kind, name)
    typer.echo(f"{path}: {kind}, to be changed into your own")
    typer.echo(f"check it:  raysoft check ./{path}")
    typer.echo(f"run it:    {how_to_use(kind, path)}")


def check(file: given.PluginFile, overrides: given.Overrides = None, *, kind: given.OfKind = None) -> None:
    """Hold a plug-in's file to what its kind promises, a line each; exit code 1 where not all of it is kept.

    Bits, shapes, purity, permutations, odd values, and a run of two rounds in this process. KEY=VALUE: settings of that
    run, for options without a default (`channel.file=trace.csv`). With --kind also a short name of `raysoft list`.
    """
    from raysoft.config import registry
    from raysoft.errors import ConfigError
    from raysoft.runs.conformance.subject import kind_of

    if kind is not None and kind not in registry.KINDS:
        raise ConfigError("--kind", f"must be one of {', '.join(registry.KINDS)}, got {kind!r:.60}")
    if kind is None and not file.endswith(".py"):
        raise ConfigError("--kind", f"is required for {file!r:.60}, which is no file that ends in .py")
    found = kind_of(file) if kind is None else kind
    from raysoft.runs.conformance.checking import findings

    typer.echo(f"{file} as {found}")
    broken = 0
    for one in findings(found, file, overrides or ()):
        broken += one.fault is not None
        typer.echo(f"  {'ok    ' if one.fault is None else 'FAILED'}  {one.promise}")
        if one.fault is not None:
            typer.echo(f"          {one.fault}")
    typer.echo("everything is kept" if not broken else f"{broken} not kept")
    if broken:
        raise typer.Exit(1)
