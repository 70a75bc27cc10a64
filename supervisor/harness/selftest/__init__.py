"""Proof of teeth: safeguards are turned off one by one, and the invariants must see it."""
