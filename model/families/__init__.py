"""The models that come with run-batch, one file each."""
