"""What was done, by whom, in a form that cannot be changed unnoticed."""
