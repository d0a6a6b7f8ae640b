"""Notifications, delivered from the outbox after commit."""
