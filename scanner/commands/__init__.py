"""The commands. Each module holds one command or command group, in a click command named like the module.

``scanner.cli`` lists the modules of this package and imports one only when its command is called.
"""
