"""``alignlab init`` writes a folder to start from; ``alignlab compare`` runs a whole comparison."""
