"""The version, for whoever may not import the package itself; pyproject.toml has it, too."""

__version__ = "0.1.0"
