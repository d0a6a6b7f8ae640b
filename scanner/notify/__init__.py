"""Notification channels: one file each. Messages come from the outbox, after commit."""
