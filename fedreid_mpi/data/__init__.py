"""From dataset folders to batches: readers, archives, preparation, the synthetic benchmark."""
