"""What `submit doctor` looks at: this machine, a Docker engine, a stack in AWS; each finding with one remedy."""
