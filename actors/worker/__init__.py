"""The part of a worker that runs user code: the consumer's machine, execution, and the child process around them."""
