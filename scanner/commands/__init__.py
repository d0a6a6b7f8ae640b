"""Groups of the command line that are more than a few thin commands: a module each, holding a click command of the module's name.

``scanner.cli`` finds them by looking, and imports one when it is called.
"""
