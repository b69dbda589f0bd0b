"""Other people's firewalls: whether they stop what containers send, and opening them where that is asked for."""
