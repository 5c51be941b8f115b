"""Decisions: is this product defective, and where."""
