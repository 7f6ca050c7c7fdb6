"""The cloud side: the stack, what lies in it, and the clients through which it is reached."""
