"""Signatures of images: one file per scheme.

Verifiers take bytes, keys and a clock and return a verdict. Fetching is a thin function beside them, so that every
verification step can be tested without a server.
"""
