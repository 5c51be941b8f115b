"""Pictures to vectors, vectors to neighbours."""
