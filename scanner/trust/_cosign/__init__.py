"""What cosign signs with and what it signs: trust documents, payloads, envelopes, log entries, certificates.

Bytes in, verdict out.
"""
