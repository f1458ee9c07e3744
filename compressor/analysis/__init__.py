"""Looks at a network without a release: `inspect`, `plan`, `sensitivity`."""
