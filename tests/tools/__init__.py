"""Programs that look for mistakes for longer than a test may."""
