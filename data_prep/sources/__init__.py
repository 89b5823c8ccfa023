"""Providers of parallel text."""
