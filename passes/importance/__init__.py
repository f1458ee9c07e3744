"""Which channels go first, and what leaving them out costs."""
