"""Where own work starts: ``alignlab init`` writes a folder, ``alignlab compare`` runs one."""
