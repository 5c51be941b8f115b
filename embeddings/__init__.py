"""Images to vectors, vectors to neighbors."""
