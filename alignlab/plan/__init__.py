"""What is to be done: YAML files read, checked, hashed and ordered, in milliseconds."""
