"""Groups of the command line that are more than a few thin commands: one module a group, each added to ``scanner.cli.cli``."""
