"""One file for each system we do not own, with the two or three verbs we use, in our own words."""
