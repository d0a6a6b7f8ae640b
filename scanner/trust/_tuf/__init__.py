"""The Update Framework as Notary v1 implements it: a client without I/O.

Bytes, trust, state and a clock go in; a digest or one typed refusal comes out. ``documents`` parses and verifies single
files. ``anchors`` decides whether a repository's root is trusted. ``repository`` follows the update order and looks up
tags. Notary's format is older than the TUF specification's (types in capitals, no ``spec_version``, fractions of
seconds, hashes after the role's name), so libraries for that specification cannot read it.
"""
