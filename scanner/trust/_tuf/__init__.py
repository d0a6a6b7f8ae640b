"""The Update Framework as Notary v1 implements it: a client without I/O.

Bytes, trust, state and a clock go in; a digest or one typed refusal comes out.

``documents`` reads and verifies single files, ``anchors`` decides whom to believe about a repository's root,
``repository`` follows the update order and answers questions. Notary's form is older than the TUF specification's
(types in capitals, no ``spec_version``, fractions of seconds, hashes behind the role's name), so libraries for that
specification do not read it.
"""
