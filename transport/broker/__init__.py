"""The broker without I/O: mailboxes, leases, schedules, suspects, dead letters, results."""
