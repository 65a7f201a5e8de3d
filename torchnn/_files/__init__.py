"""Files: tensors and nested values, written whole or not at all, read without running code."""
