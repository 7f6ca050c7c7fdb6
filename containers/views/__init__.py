"""What a person reads of a run: tables, the best candidate, the refitted model."""
