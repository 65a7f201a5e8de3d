"""All that only a GPU can tell: prepare.sh builds where nvcc is, run.sh runs where a GPU is."""
