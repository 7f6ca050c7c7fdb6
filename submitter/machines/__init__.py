"""The state machines of the stack: what they are told, and their definitions, pure functions of the stack's names."""
