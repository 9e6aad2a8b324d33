"""ModelGateway: what was seen of one (`observation`), what is to be done (`decide`), what is said of it (`status`)."""
