"""The contract that every method fulfills, how methods are evaluated, and the classic baselines."""
