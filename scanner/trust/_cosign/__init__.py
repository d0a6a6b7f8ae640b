"""Trust documents, payloads, envelopes, log entries and certificates of cosign signatures. No I/O."""
