"""The commands: a module for each command or group of commands, holding a click command of the module's name.

``scanner.cli`` finds them by looking, and imports one when it is called.
"""
