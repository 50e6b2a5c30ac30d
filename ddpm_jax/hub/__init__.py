"""Names, folders and files: from a model's name to the files in its folder."""
