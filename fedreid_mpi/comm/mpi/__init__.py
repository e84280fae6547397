"""The MPI back end; importing it starts nothing."""
