"""`python -m isoloss` is the command line."""

from isoloss.cli import main

main()
