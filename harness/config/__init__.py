"""What a user asks for: the preset, its methods and its prompts."""
