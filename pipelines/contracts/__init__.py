"""What rows must be: files read as declared, contracts that judge each row, feature tables that are what they say."""
