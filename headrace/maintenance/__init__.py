"""Keeping what there is: look for damage, mend it from what is still good, remove what nothing names any more."""
