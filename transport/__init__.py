"""How a message travels and rests: protocol, broker core, stores, ZeroMQ, simulated network."""
