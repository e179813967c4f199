"""Messages to a prompt, and a reply to its parts."""
