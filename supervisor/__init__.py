"""Who keeps it running: trees, pools, clusters, control, command line, dashboard, harness."""
