"""What the modules at the top are made of; each file is named after what it holds."""
