"""The web: API, webhooks, adapters and pages. ``create_app(settings)`` builds it; importing opens nothing."""
