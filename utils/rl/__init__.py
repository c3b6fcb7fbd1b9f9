"""Floor 3: a code model taught by PPO to write programs that solve ARC tasks, and the sandbox that runs them."""
