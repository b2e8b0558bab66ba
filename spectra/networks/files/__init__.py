"""What lies in a file, of whatever format: tensors by name, each read only when it is asked for; no code is run."""
