"""What lectures and papers claim, as numbers: exact tables, and rules that read tables."""
