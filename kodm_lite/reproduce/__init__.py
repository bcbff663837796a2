"""The comparison of methods: what is compared, the run, and its table."""
