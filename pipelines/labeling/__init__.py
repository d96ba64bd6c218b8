"""What the verb `label` is made of: which rows, what is suggested, what people did, what it adds up to."""
