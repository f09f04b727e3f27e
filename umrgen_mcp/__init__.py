"""The MCP server: UMRGEN's tools for agents that speak the Model Context Protocol. A client of the HTTP API."""
