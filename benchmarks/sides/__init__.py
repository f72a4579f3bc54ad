"""The two sides of a comparison: each module runs one case in a process of its own."""
