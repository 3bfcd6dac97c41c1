"""What can be said of any SID index without training a model."""
