"""Notary Project signatures: trust policies, envelopes, certificate chains. No I/O.

Specifications: https://github.com/notaryproject/specifications, signature-specification.md and
trust-store-trust-policy.md.
"""
