"""Notary Project signatures: trust policies, envelopes, certificate chains.

Bytes, trust and a clock in, verdict out.

Specifications: https://github.com/notaryproject/specifications, signature-specification.md and
trust-store-trust-policy.md.
"""
