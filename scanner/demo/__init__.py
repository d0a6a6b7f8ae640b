"""The demo: sample images, scanned and decided."""
