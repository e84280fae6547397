"""The MPI back end. Importing `communicator` starts MPI; importing this package does not."""
