"""The OpenAPI 3.1 description of the service, made from what validates and from what is answered."""
