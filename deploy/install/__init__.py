"""`sudo make install`, `rollback`, `uninstall`: the standard library alone, since this comes before everything."""
