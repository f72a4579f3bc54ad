"""One training from its YAML file: what ``alignlab fit`` does, in a pipeline too."""
