"""The contract that every method fulfils, how methods are judged, and the classic baselines."""
