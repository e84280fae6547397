"""``fedreid-mpi inspect``: what is in an archive."""
