"""The language of a spec: YAML in, frozen and checked models out."""
