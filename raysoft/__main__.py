"""`python -m raysoft` is the `raysoft` command."""

from raysoft.cli import main

main()
