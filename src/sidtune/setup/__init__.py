"""A first configuration: what files are, what the machine is, and what fits both."""
