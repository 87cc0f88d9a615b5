"""Opens files of strangers in low-privilege processes of their own, and speaks with these through a narrow channel."""
