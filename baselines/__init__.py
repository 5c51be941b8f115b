"""The contract that every method fulfils, and the rivals that SimCLR encoders are compared with."""
