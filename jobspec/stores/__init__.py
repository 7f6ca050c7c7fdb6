"""Where objects lie, and under which keys."""
