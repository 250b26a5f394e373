"""GPU errors: what each asks for, and which nodes are taken out of use. Decided without I/O."""
