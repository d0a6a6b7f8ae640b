"""Signatures of images: one file per scheme.

Verifiers take bytes, keys and a clock; fetching is a thin function beside them.
"""
