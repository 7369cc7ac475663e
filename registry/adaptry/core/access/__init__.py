"""Access control: the actions, the roles, the grants, and the one function that decides. Pure values."""
