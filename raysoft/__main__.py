"""`python -m raysoft` is the `raysoft` command."""

from raysoft.terminal.cli import main

main()
