"""What a user asks of a merge or a combination: values, which jobs carry too."""
