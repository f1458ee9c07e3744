"""Corpora: networks of libraries, and small ones for single operators."""
