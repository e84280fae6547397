"""What people read of a run: tables and plots. Values in, values or files out."""
