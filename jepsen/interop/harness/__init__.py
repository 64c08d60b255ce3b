"""The runner's side of the interop cases. Standard library only: it runs before anything is installed."""
