"""Keys of receipts in a key management service: AWS KMS, Google Cloud KMS, Azure Key Vault, HashiCorp Vault's transit.

The private half is created there by an administrator and never leaves it. References are written as cosign writes them.
Each service is a small client of its two documented requests: one for the public key, one for a signature.
"""
