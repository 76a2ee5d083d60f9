"""Reports: one self-contained HTML page of tables and pictures."""
