"""Report formats. Each turns evidence and a decision into text."""
