"""Files that are whole at any moment: atomic writes, the run directory, HDF5 containers."""
