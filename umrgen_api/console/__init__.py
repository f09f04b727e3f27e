"""The pages for people at /console: server-rendered, with small scripts of their own and nothing from elsewhere."""
