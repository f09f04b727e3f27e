"""Programs for the people and agents around the two daemons."""
