// Shows the description. A key typed into "Authorize" stays in this page and goes nowhere but to this server.
SwaggerUIBundle({
  url: "docs/openapi.json",
  dom_id: "#description",
  deepLinking: true,
  docExpansion: "list",
  defaultModelsExpandDepth: 0,
  validatorUrl: null,
});
