"""What the suite measures: a module for each subject, with `measure(plan)`."""
