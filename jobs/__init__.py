"""Jobs: defines, checks, runs and reports them."""
