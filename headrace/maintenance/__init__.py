"""Maintenance: check the integrity of data and workspace, repair what is damaged, delete what nothing references."""
