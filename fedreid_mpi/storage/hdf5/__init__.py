"""HDF5 files of this program: opening, checking and writing them, whatever kind of archive they hold."""
