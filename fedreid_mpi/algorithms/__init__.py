"""The mathematics, pure: values in, values out; no files, clocks, ranks or global random state."""
