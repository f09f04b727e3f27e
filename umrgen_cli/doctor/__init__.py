"""What `umrgen-admin doctor` looks at: one small file for each part of an install."""
