"""Temporary credentials of cloud registries: Amazon ECR, Google Artifact Registry, Azure Container Registry.

Each cloud is a small client of the two or three documented requests that lead to a token. `access` chooses the client
and keeps the token in memory.
"""
