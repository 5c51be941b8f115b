"""Vectors to neighbors: `Index` is all that other packages need."""

from embeddings.index.index import Index

__all__ = ["Index"]
