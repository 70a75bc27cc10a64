"""Where durable mailboxes rest: one contract, several engines, one conformance suite."""
