"""Searches that nobody starts at a desk: by an upload, by new data for a template spec, by a schedule."""
