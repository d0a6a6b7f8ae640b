"""Report formats: evidence and decision in, text out."""
