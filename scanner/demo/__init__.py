"""The demonstration: sample images, scanned and decided."""
