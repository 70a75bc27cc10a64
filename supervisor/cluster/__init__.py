"""Whole processes: the broker's, the worker node's, and small clusters of them."""
