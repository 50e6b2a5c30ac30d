"""Names, folders and files: from a model's name to what lies in its folder."""
