"""Scans and jobs under leases."""
