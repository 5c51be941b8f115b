"""The contract that every method fulfils, how methods are evaluated, and the classic baselines."""
