"""Frameworks to nouns."""
