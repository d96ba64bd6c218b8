"""`headrace publish`: load the idle slot of the online store, verify it, switch to it."""
